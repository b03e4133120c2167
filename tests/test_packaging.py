"""The package: what a wheel holds, how loaders/ is imported, what the build switches do."""

from __future__ import annotations

import ensurepip
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import textwrap
import zipfile
from pathlib import Path

import pytest
import setuptools
import torch

import fastssl
from fastssl.extension import load_extension, read_build
from tests.conftest import save_photograph
from tests.nursery import run_child

ROOT = Path(__file__).parents[1]
SOURCES = ("setup.py", "pyproject.toml", "MANIFEST.in", "README.md", "LICENSE", "CHANGELOG.md")

needs_extension = pytest.mark.skipif(not load_extension(), reason="the extension was not built")


def run_python(*arguments, cwd, **environment):
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A clean copy of the sources: building must not touch the checkout."""
    folder = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        shutil.copy(ROOT / name, folder)
    for name in ("fastssl", "loaders", "csrc"):
        ignore = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(ROOT / name, folder / name, ignore=ignore)
    return folder


@pytest.fixture(scope="module")
def pure_wheel(source, tmp_path_factory):
    """A wheel without the extension."""
    folder = tmp_path_factory.mktemp("wheel")
    code = f"from setuptools.build_meta import build_wheel; build_wheel({str(folder)!r})"
    done = run_python("-c", code, cwd=source, FASTSSL_BUILD_EXT="0")
    assert done.returncode == 0, done.stderr
    assert "_C       not built: FASTSSL_BUILD_EXT=0" in done.stderr
    (wheel,) = folder.iterdir()
    return wheel


@pytest.fixture(scope="module")
def installed(pure_wheel, tmp_path_factory):
    """Run code against the unpacked wheel, out of reach of the checkout."""
    folder = tmp_path_factory.mktemp("installed")
    with zipfile.ZipFile(pure_wheel) as archive:
        archive.extractall(folder)

    def run(code):
        # -S: without the .pth files that point an editable install at the checkout.
        path = os.pathsep.join([str(folder), str(Path(torch.__file__).parents[1])])
        done = run_python("-S", "-W", "always", "-c", code, cwd=folder.parent, PYTHONPATH=path)
        assert done.returncode == 0, done.stderr
        return done

    return run


def test_the_wheel_holds_every_module_and_no_top_level_loaders(source, pure_wheel):
    wanted = {str(path.relative_to(source)) for path in source.glob("fastssl/**/*.py")}
    wanted |= {f"fastssl/{path.relative_to(source)}" for path in source.glob("loaders/**/*.py")}
    with zipfile.ZipFile(pure_wheel) as archive:
        names = set(archive.namelist())
    assert {name for name in names if name.endswith(".py")} == wanted
    assert "fastssl/tasks/prior_imagenet.json" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"fastssl"}


def test_the_installed_wheel_imports_the_loaders(installed):
    done = installed("import fastssl.loaders as l; print(l.__name__, l.__file__)")
    assert done.stdout.startswith("fastssl.loaders ")
    assert str(ROOT) not in done.stdout


def test_the_checkout_imports_the_loaders_from_elsewhere(tmp_path):
    done = run_python("-c", "import fastssl.loaders as l; print(l.__name__)", cwd=tmp_path)
    assert done.stdout == "fastssl.loaders\n", done.stderr


def test_nothing_claims_the_name_loaders(tmp_path):
    done = run_python("-c", "import loaders", cwd=tmp_path)
    assert "ModuleNotFoundError: No module named 'loaders'" in done.stderr


def test_the_source_archive_holds_what_the_extension_is_built_from(source, tmp_path):
    code = f"from setuptools.build_meta import build_sdist; build_sdist({str(tmp_path)!r})"
    done = run_python("-c", code, cwd=source, FASTSSL_BUILD_EXT="0")
    assert done.returncode == 0, done.stderr
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    wanted = {str(path.relative_to(source)) for path in source.glob("csrc/**/*.*")}
    wanted |= {"fastssl/tasks/prior_imagenet.json"}
    assert wanted | {"loaders/__init__.py", "setup.py", "README.md"} <= names


WITHOUT_EXTENSION = """
import torch
import fastssl
from fastssl import ops
images = torch.arange(2 * 12 * 10 * 3).remainder(251).to(torch.uint8).view(2, 12, 10, 3)
corners = torch.tensor([[[0, 1], [4, 2]], [[3, 0], [1, 1]]], dtype=torch.int32)
flip = torch.tensor([True, False])
def run(images, corners):
    patches = ops.extract_patches(images, corners, 8, flip_B=flip, standardize=True)
    return patches, ops.normalize(images, [0.5] * 3, [0.25] * 3)
"""


def test_without_the_extension_ops_run_the_reference_and_warn_once(installed):
    done = installed(WITHOUT_EXTENSION + "run(images, corners); run(images, corners)")
    warning = "RuntimeWarning: fastssl runs without its extension"
    assert done.stderr.count(warning) == 1
    assert done.stderr.count("RuntimeWarning") == 1


def test_without_the_extension_results_agree_with_it(installed, tmp_path):
    path = tmp_path / "results.pt"
    installed(WITHOUT_EXTENSION + f"torch.save(run(images, corners), {str(path)!r})")
    names: dict = {}
    exec(WITHOUT_EXTENSION, names)
    here, there = names["run"](names["images"], names["corners"]), torch.load(path)
    for ours, theirs in zip(here, there, strict=True):
        # Two float32 roundings of the same value; values are below 4.
        torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_without_the_extension_ops_compile_and_pass_opcheck(installed):
    done = installed(
        WITHOUT_EXTENSION
        + "compiled = torch.compile(run, fullgraph=True, backend='aot_eager')\n"
        + "pairs = zip(compiled(images, corners), run(images, corners))\n"
        + "assert all(torch.equal(a, b) for a, b in pairs)\n"
        + "torch.library.opcheck(torch.ops.fastssl.normalize.default,"
        + " (images, flip, None, [0.5] * 3, [0.25] * 3, torch.float32, True))\n"
        + "print(ops.build_info()['cpu'])"
    )
    assert done.stdout == "False\n"


def show_version(source, **environment):
    """Run setup.py so far that it plans the build."""
    return run_child("setup.py", "--version", cwd=source, **environment)


@pytest.mark.parametrize("name", ["FASTSSL_BUILD_EXT", "FASTSSL_CUDA"])
def test_a_wrong_switch_is_refused(source, name):
    done = show_version(source, **{name: "yes"})
    assert done.returncode == 1
    assert f"error: {name} (yes) must be auto, 1 or 0" in done.stderr


BUNDLED = sorted(Path(ensurepip.__file__).parent.glob("_bundled/setuptools-*.whl"))


@pytest.mark.skipif(not BUNDLED, reason="this Python brings no setuptools of its own")
def test_an_old_setuptools_is_answered_with_what_a_build_needs(source, tmp_path):
    with zipfile.ZipFile(BUNDLED[0]) as archive:
        archive.extractall(tmp_path)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); import setuptools.build_meta as b; "
    done = run_python("-S", "-c", code + "b.prepare_metadata_for_build_wheel('.')", cwd=source)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: setuptools ({BUNDLED[0].name.split('-')[1]}) must be 77")
    assert 'pip install "setuptools>=77" torch' in line


needs_cuda_torch = pytest.mark.skipif(
    torch.version.cuda is None, reason="needs a CUDA build of torch"
)


@pytest.fixture
def write_toolkit(tmp_path):
    """Write a folder that looks like a CUDA toolkit of some version."""

    def write(version):
        (tmp_path / "include").mkdir()
        (tmp_path / "include" / "cuda_runtime.h").touch()
        nvcc = tmp_path / "bin" / "nvcc"
        nvcc.parent.mkdir()
        nvcc.write_text(
            f"#!/bin/sh\necho Cuda compilation tools, release {version}, V{version}.0\n"
        )
        nvcc.chmod(0o755)
        return str(tmp_path)

    return write


@needs_cuda_torch
def test_demanded_cuda_kernels_without_a_compiler_name_what_to_install(source, tmp_path):
    done = show_version(source, FASTSSL_CUDA="1", CUDA_HOME=str(tmp_path))
    assert done.returncode == 1
    assert "error: FASTSSL_CUDA (1) asks for CUDA kernels: torch is built for CUDA" in done.stderr
    assert f"CUDA_HOME ({tmp_path}) has no bin/nvcc" in done.stderr
    if int(torch.version.cuda.split(".")[0]) >= 13:
        assert f'run: pip install "nvidia-cuda-nvcc=={torch.version.cuda}.*"' in done.stderr


@needs_cuda_torch
def test_without_a_cuda_compiler_the_build_says_so_and_goes_on(source, tmp_path):
    done = show_version(source, CUDA_HOME=str(tmp_path))
    assert done.returncode == 0
    assert "cuda     no: torch is built for CUDA" in done.stderr
    assert "ops on a GPU run their PyTorch reference" in done.stderr


@needs_cuda_torch
def test_a_cuda_compiler_of_another_major_version_is_not_taken(source, write_toolkit):
    done = show_version(source, FASTSSL_CUDA="1", CUDA_HOME=write_toolkit("10.2"))
    assert done.returncode == 1
    assert "nvcc 10.2 (CUDA_HOME) is of another major version" in done.stderr


@needs_cuda_torch
def test_the_build_tells_which_cuda_compiler_and_architectures_it_takes(source, write_toolkit):
    home = write_toolkit(torch.version.cuda)
    done = show_version(source, CUDA_HOME=home, FASTSSL_CUDA_ARCHS="9.0;10.0+PTX")
    assert done.returncode == 0
    wanted = f"cuda     9.0 10.0+PTX, nvcc {torch.version.cuda} from CUDA_HOME ({home})"
    assert wanted in done.stderr


@needs_cuda_torch
def test_wrong_architectures_are_refused(source, write_toolkit):
    home = write_toolkit(torch.version.cuda)
    done = show_version(source, CUDA_HOME=home, FASTSSL_CUDA_ARCHS="9.0 sm_100")
    assert done.returncode == 1
    assert "error: FASTSSL_CUDA_ARCHS (9.0 sm_100) must be compute capabilities" in done.stderr


@pytest.mark.skipif(torch.version.cuda is not None, reason="needs a CPU build of torch")
def test_cuda_kernels_for_a_cpu_build_of_torch_are_refused(source):
    done = show_version(source, FASTSSL_CUDA="1")
    assert done.returncode == 1
    assert "error: FASTSSL_CUDA (1) asks for CUDA kernels: torch" in done.stderr
    assert "is no CUDA build" in done.stderr


def test_cuda_kernels_can_be_left_out(source):
    done = show_version(source, FASTSSL_CUDA="0")
    assert done.returncode == 0
    assert "cuda     no: FASTSSL_CUDA=0" in done.stderr


def test_without_a_compiler_the_build_says_why_and_goes_on(source, tmp_path):
    done = show_version(source, PATH=str(tmp_path), CXX="no-such-compiler")
    assert done.returncode == 0
    assert "_C       not built: no C++ compiler (no-such-compiler); install one" in done.stderr


def test_without_a_compiler_a_demanded_extension_fails(source, tmp_path):
    done = show_version(source, PATH=str(tmp_path), CXX="no-such-compiler", FASTSSL_BUILD_EXT="1")
    assert done.returncode == 1
    assert "error: FASTSSL_BUILD_EXT (1) asks for the extension: no C++ compiler" in done.stderr


@needs_extension
def test_the_extension_shares_the_openmp_runtime_of_torch(tmp_path):
    # A second runtime would ignore torch.set_num_threads and oversubscribe the cores.
    code = (
        "import torch, fastssl._C, re\n"
        "maps = open('/proc/self/maps').read()\n"
        r"print(len(set(re.findall(r'/\S*lib(?:gomp|iomp5|omp)\S*', maps))))"
    )
    done = run_python("-c", code, cwd=tmp_path)
    assert done.stdout == "1\n", done.stderr


@needs_extension
def test_the_extension_uses_the_stable_abi_of_python():
    assert (ROOT / "fastssl" / "_C.abi3.so").is_file()


def test_a_broken_extension_is_an_error_and_no_reason_for_the_reference(installed):
    code = (
        "import fastssl, pathlib\n"
        "broken = pathlib.Path(fastssl.__file__).with_name('_C.abi3.so')\n"
        "broken.write_bytes({content})\n"
        "try:\n    from fastssl import ops\n"
        "except ImportError as error:\n    print(error)\n"
        "finally:\n    broken.unlink()\n"
    )
    version = torch.__version__.split("+")[0]
    told = f"b'fastssl build: torch={version};cuda=;cuda_archs=;jpeg=;'"
    for content, wanted in (
        ("b'no library'", "was built from other sources or is damaged"),
        (told, "was built but does not load with torch"),
    ):
        done = installed(code.format(content=content))
        assert wanted in done.stdout
        assert "build it again: pip install --no-build-isolation -e ." in done.stdout


def test_an_extension_for_another_torch_is_named_once_and_not_loaded(installed):
    # The file would not even load: only its text may be read.
    code = (
        "import fastssl, pathlib\n"
        "other = pathlib.Path(fastssl.__file__).with_name('_C.abi3.so')\n"
        "other.write_bytes(b'fastssl build: torch=1.13.1;cuda=;cuda_archs=;jpeg=;')\n"
        "try:\n" + textwrap.indent(WITHOUT_EXTENSION, "    ") + "\n"
        "    run(images, corners)\n    run(images, corners)\n"
        "    print(ops.build_info()['cpu'])\n"
        "finally:\n    other.unlink()\n"
    )
    done = installed(code)
    assert done.stdout == "False\n"
    warning = "RuntimeWarning: fastssl._C is not used: it was built for torch 1.13.1, and this is"
    assert done.stderr.count(warning) == 1
    assert done.stderr.count("RuntimeWarning") == 1


# ---- a wheel in an environment of its own --------------------------------------------------------

SMALL_RUN = (
    *("--task.num-permutations", "10", "--task.hidden", "8", "--task.resize-short", "36"),
    *("--task.crop", "36", "--task.patch", "10", "--task.jitter", "3"),
    *("--data.global-batch-size", "8", "--data.num-threads", "1"),
    *("--log.every-steps", "1", "--log.progress", "false", "--log.pictures-every-steps", "0"),
)


@pytest.fixture(scope="module")
def environment(source, tmp_path_factory):
    """A fresh environment with the wheel: packages of others are lent to it, fastssl is not."""
    folder = tmp_path_factory.mktemp("environment")
    sources = shutil.copytree(source, folder / "sources")
    built = f"lib.{sysconfig.get_platform()}-{sys.implementation.cache_tag}"
    for binary in (ROOT / "fastssl").glob("*.so"):
        target = sources / "build" / built / "fastssl" / binary.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(binary, target)
    # What the checkout has compiled already.
    steps = ("build_py", "bdist_wheel", "--skip-build", "--dist-dir", str(folder))
    cuda = "1" if read_build()["cuda"] else "0"
    done = run_python("setup.py", *steps, cwd=sources, FASTSSL_BUILD_EXT="1", FASTSSL_CUDA=cuda)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("*.whl")
    assert "cp311-abi3" in wheel.name
    run_python("-m", "venv", "--without-pip", str(folder / "venv"), cwd=folder)
    python = folder / "venv" / "bin" / "python"
    # Paths that a .pth file names are not searched for the .pth files of an editable install.
    (site,) = (folder / "venv").glob("lib/python*/site-packages")
    places = dict.fromkeys(Path(module.__file__).parents[1] for module in (torch, setuptools))
    (site / "lent.pth").write_text("".join(f"{place}\n" for place in places))
    install = ("--python", str(python), "install", "--no-deps", "--no-index", str(wheel))
    done = run_python("-m", "pip", *install, cwd=folder)
    assert done.returncode == 0, done.stderr

    def run(program, *arguments):
        names = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [folder / "venv" / "bin" / program, *map(str, arguments)],
            cwd=folder,
            env={name: os.environ[name] for name in ("PATH", "HOME")} | names,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done

    run.folder = folder
    return run


@needs_extension
@pytest.mark.slow
def test_the_doctor_tells_of_an_installed_wheel(environment):
    environment("fastssl", "doctor", "--json", "doctor.json")
    found = json.loads((environment.folder / "doctor.json").read_text())
    package = {finding["name"]: finding["said"] for finding in found["fastssl"]}
    assert package["version"].startswith(f"{fastssl.__version__}, {environment.folder}/venv/lib/")
    assert package["extension"] == f"for torch {torch.__version__.split('+')[0]}, _C.abi3.so"
    loaders = {finding["name"]: finding["said"] for finding in found["loaders"]}
    assert loaders["webdataset"].startswith("works")
    assert loaders["native"].startswith("works") == bool(read_build()["jpeg"])


@needs_extension
@pytest.mark.slow
@pytest.mark.faults
def test_an_installed_wheel_trains_and_goes_on_under_torchrun(environment):
    for number in range(16):
        save_photograph(environment.folder / "photos" / f"{number}.jpg", number)
    environment("fastssl", "make-shards", "photos", "shards", "--workers", 1)
    environment("fastssl", "check-shards", "shards")
    train = ("train", "demo", "--data.path", "shards", "--output-dir", "run", *SMALL_RUN)
    environment("fastssl", *train, "--max-steps", 2)
    launch = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", 2, "-m", "fastssl")
    done = environment("python", *launch, *train, "--max-steps", 4)
    assert "going on after step 2" in done.stderr
    run = environment.folder / "run"
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4]
    assert (run / "trunk.safetensors").is_file()
    assert json.loads((run / "exit.json").read_text())["code"] == 0
