#!/usr/bin/env bash
# Build, test and measure everything that needs a GPU, within ten minutes, and write one JSON file.
#
# Made for a bare machine without a network: it needs torch with CUDA, nvcc, a C++ compiler,
# setuptools 77 or newer, and the packages that fastssl imports (it names those that are missing).
# Nothing is installed: the package is built into build/gpu. Without a GPU it does the same on the
# CPU, with the tests skipped and a small network, which shows only that it runs.
#
#   tools/gpu_check.sh [FILE]    FILE: gpu_check.json
#
# Environment: PYTHON (python3, or .venv's if it is there); FASTSSL_CUDA_ARCHS, CUDA_HOME, MAX_JOBS
# as for any build.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

RESULT=$(realpath -m "${1:-gpu_check.json}")
if [[ -z ${PYTHON:-} ]]; then
    PYTHON=python3
    [[ ! -x .venv/bin/python ]] || PYTHON=$PWD/.venv/bin/python
fi
WORK=$PWD/build/gpu
PARTS=$WORK/parts
rm -rf "$WORK"
mkdir -p "$PARTS"
start=$SECONDS

# run_part NAME SECONDS COMMAND...: run it within the time, keep its output, note how it ended.
run_part() {
    local name=$1 limit=$2 began=$SECONDS code=0
    shift 2
    printf '[gpu_check] %s ...\n' "$name"
    timeout --kill-after=10 "$limit" "$@" < /dev/null > "$PARTS/$name.log" 2>&1 || code=$?
    printf '%s %s\n' "$code" "$((SECONDS - began))" > "$PARTS/$name.end"
    printf '[gpu_check] %s: %s, %d s\n' "$name" \
        "$([[ $code == 0 ]] && echo ok || echo "FAILED with $code")" "$((SECONDS - began))"
    [[ $code == 0 ]] || tail -n 25 "$PARTS/$name.log"
    return "$code"
}

missing=$("$PYTHON" -c 'import importlib.util
names = "torch numpy PIL tyro tqdm safetensors webdataset tensorboard sklearn matplotlib pytest"
print(*(name for name in names.split() if importlib.util.find_spec(name) is None))')
[[ -z $missing ]] || printf '[gpu_check] missing packages: %s; what needs them fails\n' "$missing"

has_gpu=$("$PYTHON" -c 'import torch; print(int(torch.cuda.is_available()))')
is_cuda_torch=$("$PYTHON" -c 'import torch; print(int(torch.version.cuda is not None))')
[[ $is_cuda_torch == 0 ]] || export FASTSSL_CUDA=${FASTSSL_CUDA:-1}
export MAX_JOBS=${MAX_JOBS:-$(nproc)} PYTHONUNBUFFERED=1 OMP_NUM_THREADS=${OMP_NUM_THREADS:-}
[[ -n $OMP_NUM_THREADS ]] || unset OMP_NUM_THREADS

export FASTSSL_BUILD_EXT=1
run_part build 240 "$PYTHON" setup.py --quiet build --build-base "$WORK/base" --build-lib "$WORK/lib"

# The built tree and never the checkout, in every process that is started from here.
export PYTHONPATH=$WORK/lib PYTHONSAFEPATH=1
run_part tests 240 "$PYTHON" -m pytest -q -m gpu -p no:cacheprovider tests \
    --junitxml="$PARTS/tests.xml"
run_part bench_ops 120 "$PYTHON" tools/bench_ops.py --batch-size "$([[ $has_gpu == 1 ]] && echo 512 || echo 16)" \
    --rounds 5 --json "$PARTS/bench_ops.json"
if [[ $has_gpu == 1 ]]; then
    training=(goyal19_jigsaw --precision bf16 --data.global-batch-size 256
        --bench.rounds 3 --bench.steps 8 --bench.warm-steps 4 --bench.photographs 1024)
else
    training=(goyal19_jigsaw_smoke --bench.rounds 3 --bench.steps 2 --bench.warm-steps 1
        --bench.photographs 32)
fi
run_part bench_training $((570 - (SECONDS - start) > 60 ? 570 - (SECONDS - start) : 60)) \
    "$PYTHON" tools/bench_training.py "${training[@]}" --json "$PARTS/bench_training.json"

"$PYTHON" - "$PARTS" "$RESULT" "$((SECONDS - start))" <<'PYTHON'
"""Put the parts together."""
import json
import pathlib
import platform
import subprocess
import sys
import xml.etree.ElementTree as xml

import torch

parts, result, seconds = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]), int(sys.argv[3])


def read_output(*command):
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def read_build():
    import fastssl.ops

    return fastssl.ops.build_info()


content = {
    "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    "capability": torch.cuda.get_device_capability() if torch.cuda.is_available() else None,
    "driver": read_output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
    "python": platform.python_version(),
    "torch": str(torch.__version__),
    "commit": read_output("git", "rev-parse", "HEAD"),
    "seconds": seconds,
    "parts": {},
}
for name in ("build", "tests", "bench_ops", "bench_training"):
    code, took = map(int, (parts / f"{name}.end").read_text().split())
    content["parts"][name] = {"ok": code == 0, "exit_code": code, "seconds": took}
    if code:
        content["parts"][name]["end_of_log"] = (parts / f"{name}.log").read_text()[-3000:]
try:
    content["build"] = read_build()
except Exception as error:
    content["build"] = {"error": repr(error)}
if (parts / "tests.xml").exists():
    suite = xml.parse(parts / "tests.xml").getroot().find("testsuite")
    names = ("tests", "failures", "errors", "skipped")
    content["tests"] = {name: int(suite.get(name)) for name in names}
    content["tests"]["failed"] = [
        case.get("classname") + "::" + case.get("name")
        for case in suite.iter("testcase")
        if case.find("failure") is not None or case.find("error") is not None
    ]
for name in ("bench_ops", "bench_training"):
    if (parts / f"{name}.json").exists():
        content[name] = json.loads((parts / f"{name}.json").read_text())
result.write_text(json.dumps(content, indent=1) + "\n")
print(json.dumps(content, indent=1))
sys.exit(not all(part["ok"] for part in content["parts"].values()))
PYTHON
