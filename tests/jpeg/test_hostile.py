"""Damaged files under ASan and UBSan: cut at every byte, bits flipped, counts and sizes that lie.

The fuzz targets without a fuzzer, for any compiler; `make fuzz` goes on from here.
"""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CSRC = ROOT / "csrc" / "jpeg"
SANITIZERS = ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")
KINDS = ("444", "422", "420", "440", "411", "grey", "cmyk")
# 21 files.
SEEDS = tuple(f"17x33-{kind}{form}" for kind in KINDS for form in ("", "-progressive", "-restart3"))
MUTATIONS = 500


@pytest.fixture(scope="module")
def objects(build_program, tmp_path_factory) -> list[Path]:
    """All of csrc/jpeg that is free of torch, compiled for the sanitizers."""
    folder = tmp_path_factory.mktemp("objects")
    probe = folder / "probe.cpp"
    probe.write_text("int main() { return 0; }\n")
    try:
        subprocess.run([build_program("probe", [probe], *SANITIZERS)], check=True)
    except (subprocess.CalledProcessError, OSError):
        pytest.skip("the C++ compiler has no ASan and UBSan (Debian: apt-get install g++)")
    sources = [path for path in sorted(CSRC.glob("*.cpp")) if not path.name.startswith("ops_")]

    def compile_one(source: Path) -> Path:
        # Only an object: the options of linking that build_program adds mean nothing to it.
        return build_program(f"{source.stem}.o", [source], *SANITIZERS, "-c")

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(compile_one, sources))


@pytest.mark.slow
@pytest.mark.parametrize("target", ["parse", "transcode", "decode"])
def test_no_damage_breaks_what_a_target_promises(objects, build_program, corpus, target):
    own = [CSRC / "fuzz" / f"fuzz_{target}.cpp", CSRC / "fuzz" / "replay.cpp"]
    program = build_program(f"replay_{target}", [*own, *objects], *SANITIZERS)
    seeds = [corpus / f"{name}.jpg" for name in SEEDS]
    done = subprocess.run([program, str(MUTATIONS), *seeds], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    # Each file, each of its truncations with and without an end marker, and the mutations.
    runs = sum(1 + 2 * seed.stat().st_size + MUTATIONS for seed in seeds)
    assert done.stdout == f"{runs} runs, no finding\n"
