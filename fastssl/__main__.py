"""``python -m fastssl COMMAND``, ``torchrun -m fastssl COMMAND`` and the console script."""

from __future__ import annotations

import signal
import sys

# Ctrl-C in the middle of an import would show a traceback, and there are some 100 ms of them until
# a command answers it by itself.
if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, signal.SIG_DFL)

from .commands import COMMANDS, describe_commands, run


def main() -> None:
    """Run the command that the first word names."""
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("-h", "--help"):
        print(describe_commands())
    elif name == "--version":
        from . import __version__

        print(f"fastssl {__version__}")
    elif name.replace("_", "-") in COMMANDS:
        name = name.replace("_", "-")
        run(name, arguments, program=f"fastssl {name}")
    else:
        from .errors import EXIT_INPUT, nearest

        print(f"error: command ('{name}') is not known{nearest(name, COMMANDS)}", file=sys.stderr)
        raise SystemExit(EXIT_INPUT)


if __name__ == "__main__":
    main()
