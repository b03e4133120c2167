"""What a sweep's tests run in place of fastssl: it keeps to what a sweep knows of its commands.

It takes steps, each kept as soon as it is done; goes on behind those that are there; ends with 75
on a signal; and says last that it is done. It imports nothing of ours: it starts in 20 ms.
"""

import hashlib
import json
import math
import os
import signal
import sys
from pathlib import Path

NUM_STEPS = 16


def publish(path, content):
    """Write a file whole."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(json.dumps(content))
    temporary.replace(path)


def main():
    """Take the steps that are left."""
    command, *words = sys.argv[1:]
    options = {a: b for a, b in zip(words, [*words[1:], ""], strict=True) if a.startswith("--")}
    place = Path(options["--output-dir" if command == "train" else "--json"])
    folder = place if command == "train" else place.with_suffix(".steps")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "exit.json").unlink(missing_ok=True)
    stopped = []
    signal.signal(signal.SIGTERM, lambda number, _: stopped.append(number))
    sources = [Path(options[name]) for name in ("--checkpoint", "--trunk-from") if name in options]
    with (folder / "lives").open("a") as lives:
        told = [options.get("--data.num-threads"), os.environ.get("OMP_NUM_THREADS")]
        lives.write(json.dumps([*told, os.getpid(), os.getppid()]) + "\n")
    life = len((folder / "lives").read_text().splitlines())
    for source in sources:
        assert json.loads((source / "exit.json").read_text())["code"] == 0
    steps = folder / "steps"
    state = "".join([options.get("--seed", ""), *((s / "state").read_text() for s in sources)])
    for step in range(1, NUM_STEPS + 1):
        state = hashlib.sha256(state.encode() * 40_000).hexdigest()
        done = steps.read_text().splitlines() if steps.exists() else []
        if len(done) < step:
            # Of the lives that are to be ended there.
            if step == int(options.get("--stop-at", 0)) and life <= int(options["--stops"]):
                publish(folder / "waits", life)
                signal.pause()
            if stopped:
                publish(folder / "exit.json", {"code": 75, "reason": "stopped", "step": step - 1})
                raise SystemExit(75)
            with steps.open("a") as file:
                file.write(f"{state}\n")
            if "--optim.lr" in options:  # 1e-3 is best, and the longer the better
                loss = abs(math.log10(float(options["--optim.lr"])) + 3) + 1 / step
                with (folder / "metrics.jsonl").open("a") as file:
                    file.write(json.dumps({"step": step, "loss": loss}) + "\n")
        if "--fail-at" in options and step == int(options["--fail-at"]):
            raise SystemExit("error: it fails here")
    if "--forget" in options:
        return
    if command == "train":
        (folder / "state").write_text(state)
        publish(folder / "exit.json", {"code": 0, "reason": "done", "step": NUM_STEPS})
    else:
        result = {"task": "knn", "protocol": "own", "metric": "top1"}
        publish(place, result | {"value": int(state[:8], 16) / 2**32})


if __name__ == "__main__":
    main()
