"""Programs that start in a tenth of a second: forked from a process that has imported torch.

A fresh Python that trains spends four seconds of a core on importing torch, Dynamo and this
package. Where a test is about what comes after that, its program is a child of the nursery: a
process with words, environment and output of its own, that is killed, signalled and asked for its
end like a fresh one. What is about imports, installed packages or torchrun starts a real one.
"""

from __future__ import annotations

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from multiprocessing.context import ForkProcess
from pathlib import Path

from tests.patience import HANGS_AFTER_S

ROOT = Path(__file__).parents[1]


class Child:
    """A program; the face of ``subprocess.Popen``, its output kept in files."""

    def __init__(
        self, words: Sequence[object], ranks: int = 0, cwd: Path = ROOT, **environment: str
    ) -> None:
        """Start it.

        Args:
            words: what stands behind ``python``: ``-c CODE``, ``-m MODULE`` or a script, and its
                arguments; where there are ranks, torchrun's options may stand before them.
            ranks: run it under torchrun on so many ranks; torchrun forks them too.
            cwd: the folder that it runs in.
            environment: beside this process's.
        """
        self.args = [str(word) for word in words]
        self.returncode: int | None = None
        self._files = [tempfile.TemporaryFile() for _ in range(2)]
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = {"words": self.args, "ranks": ranks, "cwd": str(cwd)}
        request["environment"] = {**os.environ, **environment}
        descriptors = [theirs.fileno(), *(file.fileno() for file in self._files)]
        # A file: an environment may be longer than a message.
        with tempfile.TemporaryFile() as file:
            file.write(json.dumps(request).encode())
            file.flush()
            rights = array.array("i", [*descriptors, file.fileno()]).tobytes()
            _open().sendmsg([b"!"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            theirs.close()
            self.pid = self._receive()

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        return self._ask(0)

    def wait(self, timeout: float = HANGS_AFTER_S) -> int:
        """Wait for the end; return the exit code, the signal's number below zero if it was one."""
        code = self._ask(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout)
        return code

    def communicate(self, timeout: float = HANGS_AFTER_S) -> tuple[str, str]:
        """Wait for the end; return what it said on stdout and stderr."""
        self.wait(timeout)
        out, err = (os.pread(file.fileno(), 1 << 30, 0) for file in self._files)
        return out.decode("utf-8", "replace"), err.decode("utf-8", "replace")

    def list_lines(self) -> list[str]:
        """Return the whole lines that stand on stdout by now."""
        *lines, _rest = os.pread(self._files[0].fileno(), 1 << 30, 0).decode().split("\n")
        return lines

    def send_signal(self, number: int) -> None:
        """Send a signal, unless its end is known."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):  # its end is about to be told
                os.kill(self.pid, number)

    def kill(self) -> None:
        """End it without asking."""
        self.send_signal(signal.SIGKILL)

    def _ask(self, timeout: float) -> int | None:
        if self.returncode is None and select.select([self._ours], [], [], timeout)[0]:
            self.returncode = self._receive()
            self._ours.close()
        return self.returncode

    def _receive(self) -> int:
        message = self._ours.recv(64)
        assert message, "the nursery has ended; see what stands on stderr"
        return int(message)


def run_child(
    *words: object, ranks: int = 0, cwd: Path = ROOT, check: bool = False, **environment: str
) -> subprocess.CompletedProcess:
    """Run a program to its end; see ``Child``."""
    child = Child(words, ranks, cwd, **environment)
    try:
        said = child.communicate()
    finally:
        child.kill()
    done = subprocess.CompletedProcess(child.args, child.wait(), *said)
    if check:
        assert done.returncode == 0, done.stderr
    return done


class ForkedWorker(ForkProcess):
    """A worker of a conversion, forked from the test's own process, which has imported it all.

    A fresh one, as outside tests, takes 0.3 s of a core, and tests start hundreds. It stands for
    ``SpawnProcess`` in ``fastssl.system.workers``.
    """

    def run(self) -> None:
        """Work; what tests have left as garbage in the parent is collected there alone."""
        gc.freeze()
        super().run()


@functools.cache
def _open() -> socket.socket:
    """Start the nursery of this process; it ends with it."""
    ours, theirs = socket.socketpair()
    command = [sys.executable, "-m", "tests.nursery", str(theirs.fileno())]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        pass_fds=[theirs.fileno()],
        start_new_session=True,
    )
    theirs.close()

    def close() -> None:
        ours.close()
        process.wait()

    atexit.register(close)
    return ours


# ---- in the nursery ------------------------------------------------------------------------------

_MODULES = (
    "torch._dynamo",
    "torch.distributed.run",
    "torch.utils.flop_counter",
    "torch.utils.tensorboard",
    "tyro",
    "fastssl.commands.train",
    "fastssl.loaders.native",
    "fastssl.loaders.webdataset",
    "fastssl.shards.making.convert",
    "tests.small_runs",
)


def _serve(requests: socket.socket) -> Callable[[], None] | None:
    """Fork until the other side closes.

    Returns:
        In a child what it is to run, so that its end is that of any program; else None.
    """
    assert len(os.listdir("/proc/self/task")) == 1, "a process of several threads cannot fork"
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
    signal.set_wakeup_fd(wake)
    running: dict[int, socket.socket] = {}
    while True:
        ready, _, _ = select.select([requests, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            _tell_ends(running)
        if requests not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, 1, 4)
        if not message:
            for pid in running:
                os.kill(pid, signal.SIGKILL)
            return None
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for part in (requests, *running.values()):
                part.close()
            os.close(woken)
            os.close(wake)
            return _settle(descriptors)
        told, *files = descriptors
        running[pid] = socket.socket(fileno=told)
        running[pid].send(str(pid).encode())
        for file in files:
            os.close(file)


def _tell_ends(running: dict[int, socket.socket]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (end := os.waitpid(-1, os.WNOHANG))[0]:
            with running.pop(end[0]) as told, contextlib.suppress(OSError):
                told.send(str(os.waitstatus_to_exitcode(end[1])).encode())


def _settle(descriptors: Sequence[int]) -> Callable[[], None]:
    """Make a forked process one of its own; return what it runs."""
    told, out, err, request = descriptors
    os.close(told)
    os.setsid()
    os.dup2(out, 1)
    os.dup2(err, 2)
    with open(request, "rb") as file:
        file.seek(0)
        content = json.load(file)
    os.close(out)
    os.close(err)
    os.environ.clear()
    os.environ.update(content["environment"])
    os.chdir(content["cwd"])
    if content["ranks"]:
        return functools.partial(_launch, content["ranks"], content["words"])
    return functools.partial(_run, content["words"])


def _run(words: list[str]) -> None:
    """Do what ``python WORDS`` does."""
    if words[0] == "-c":
        sys.argv = ["-c", *words[2:]]
        exec(compile(words[1], "<string>", "exec"), vars(sys.modules["__main__"]))
    elif words[0] == "-m":
        sys.argv = words[1:]
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        sys.path[0] = str(Path(words[0]).parent)
        runpy.run_path(words[0], run_name="__main__")


def _launch(num_ranks: int, words: list[str]) -> None:
    """Do what ``torchrun`` does; but its ranks are forked, where it would start fresh ones."""
    from torch.distributed import run
    from torch.distributed.elastic.multiprocessing.errors import record
    from torch.distributed.launcher.api import elastic_launch

    @record
    def main() -> None:
        options = ("--nproc-per-node", str(num_ranks), "--rdzv-backend", "c10d")
        arguments = run.parse_args([*options, "--rdzv-endpoint", "localhost:0", *words])
        config, _, _ = run.config_from_args(arguments)
        config.start_method = "fork"
        script = [arguments.training_script, *arguments.training_script_args]
        elastic_launch(config, _run)(["-m", *script] if arguments.module else script)

    main()


def _end(program: Callable[[], None]) -> None:
    """Run it to its end, but for what comes last in Python: taking every module apart.

    In a forked process that copies what it shares with the nursery, half a second's worth of pages.
    """
    code: object = 0
    try:
        program()
    except SystemExit as end:
        code = end.code
    except Exception:
        sys.excepthook(*sys.exc_info())
        code = 1
    if isinstance(code, str):
        print(code, file=sys.stderr)
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code if isinstance(code, int) else code is not None)


if __name__ == "__main__":
    for name in _MODULES:
        importlib.import_module(name)
    gc.freeze()  # a collection in a child would copy what it shares with its siblings
    program = _serve(socket.socket(fileno=int(sys.argv[1])))
    if program is not None:
        _end(program)
