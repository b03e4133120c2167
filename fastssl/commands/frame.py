"""The frame of every command: exit codes and one-line errors.

Exit codes: 0 done, 2 the input is wrong (one line on stderr), 75 stopped by a signal after saving,
1 anything else.
"""

from __future__ import annotations

import contextlib
import difflib
import io
import itertools
import json
import logging
import os
import re
import select
import shlex
import signal
import sys
import time
import traceback
import typing
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

from ..address import hide_credentials
from ..errors import EXIT_DONE, InputError, describe_failure, is_left_to_another_rank, nearest
from ..fields import Item, walk
from ..system.files import check_file_place
from ..system.workers import Progress

_MAX_LINE, _MAX_SEARCHED = 4000, 16_000
_PLAIN_FORMAT = warnings.formatwarning
_SECONDS_BETWEEN_LINES = "10"
_ASIDE = ("For full helptext", "Argument helptext")
_ESCAPES = re.compile(r"\x1b\[[0-9;]*m")


def _format_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    line: str | None = None,
) -> str:
    """Show a warning of ours as one line; those of others keep the place that they come from."""
    if category is UserWarning and Path(filename).is_relative_to(Path(__file__).parents[1]):
        return f"warning: {spell_line(str(message))}\n"
    return _PLAIN_FORMAT(message, category, filename, lineno, line)


def run_command(main: Callable[[], None]) -> None:
    """Run a command's main function and exit with the code that its outcome calls for.

    Args:
        main: the command; returns for success, raises otherwise.

    Raises:
        SystemExit: always, unless the failure deserves its traceback.
    """
    warnings.formatwarning = _format_warning
    if not sys.stderr.isatty():
        # A file gets a bar's line now and then, from every bar; tqdm reads it when it is imported.
        os.environ.setdefault("TQDM_MININTERVAL", _SECONDS_BETWEEN_LINES)
    try:
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        main()
        sys.stdout.flush()
    except (Exception, KeyboardInterrupt) as error:
        if isinstance(error, KeyboardInterrupt):
            # Whoever presses it again must not hit the tidying up of the interpreter.
            signal.signal(signal.SIGINT, signal.SIG_IGN)
            if sys.stderr.isatty():
                print(file=sys.stderr)  # a bar may have been left behind, and the echo of the key
        if isinstance(error, BrokenPipeError) and _has_no_reader():
            raise SystemExit(EXIT_DONE) from None
        code, line = describe_failure(error)
        if line is None:
            raise
        # A bar that a signal found half-built is closed now, and not below the line.
        traceback.clear_frames(error.__traceback__)
        line = spell_line(line)
        _tell_launcher(line)
        # Where several ranks fail together, the one that found out says it.
        if not is_left_to_another_rank(error):
            print(line, file=sys.stderr)
        raise SystemExit(code) from None


def spell_line(text: str) -> str:
    """Return what is to be told as the contract's one line: printable, of bounded length.

    Names that somebody else chose stand in it, and they may have megabytes, or move the cursor.

    Args:
        text: of an error.
    """
    # Cut before the search for passwords, which takes its time, and far behind where it ends.
    line = hide_credentials(" ".join(text[:_MAX_SEARCHED].split()))
    line = line if len(line) <= _MAX_LINE else f"{line[:_MAX_LINE]} ..."
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in line)


def _tell_launcher(line: str) -> None:
    """Have torchrun say a line once more at the end of the many that it says of its own."""
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:
        with contextlib.suppress(OSError):
            told = {"py_callstack": line, "timestamp": str(int(time.time()))}
            content = {"message": {"message": line, "extraInfo": told}}
            Path(path).write_text(json.dumps(content))


def program_name() -> str:
    """Return what the user called: the script's name, or ``fastssl`` with the command's."""
    return os.path.basename(sys.argv[0])


def name_command(*words: str) -> str:
    """Return a command line as a result keeps it: without what its addresses give away.

    Args:
        words: the command's name and what stands behind it.
    """
    return hide_credentials(shlex.join(["fastssl", *words]))


def _has_no_reader() -> bool:
    """Return whether whoever read the output has left, as ``head`` does; if so, write no more."""
    output = sys.stdout.fileno()
    poll = select.poll()
    poll.register(output, 0)
    if not any(events & select.POLLERR for _, events in poll.poll(0)):
        return False
    # What is still buffered would fail once more at the interpreter's end.
    os.dup2(os.open(os.devnull, os.O_WRONLY), output)
    return True


def boolean_options(config: typing.Any) -> list[str]:
    """Return the options of a config that take true or false, such as ``--data.ledger``.

    Args:
        config: a dataclass, or an instance of one, whose values then tell more than its types.
    """
    return [_option(item) for item in walk(config) if item.kind is bool]


def choice_options(config: typing.Any) -> dict[str, tuple[str, ...]]:
    """Return the options of a config that take one of a few words, and the words.

    Args:
        config: a dataclass, or an instance of one.
    """
    literals = (item for item in walk(config) if typing.get_origin(item.kind) is typing.Literal)
    return {_option(item): tuple(map(str, typing.get_args(item.kind))) for item in literals}


def _option(item: Item) -> str:
    return f"--{item.name.replace('_', '-')}"


def spell_booleans(arguments: Sequence[str], options: Sequence[str]) -> list[str]:
    """Rewrite boolean options in the one spelling that the parser takes.

    Args:
        arguments: the command line: ``--x true``, ``--x=true`` and the bare ``--x`` are all right.
        options: names of the boolean options.

    Returns:
        The command line with each of them as ``--x true`` or ``--x false``.

    Raises:
        InputError: for ``--x=`` anything else.
    """
    spelled: list[str] = []
    rest = list(arguments)
    while rest:
        word = rest.pop(0)
        name, has_value, value = word.partition("=")
        name = name.replace("_", "-")
        if name not in options:
            spelled.append(word)
            continue
        if has_value and value.lower() not in ("true", "false"):
            raise InputError(f"{name} ('{value}') must be true or false")
        if not has_value:
            is_value = bool(rest) and rest[0].lower() in ("true", "false")
            value = rest.pop(0) if is_value else "true"
        spelled += [name, value.lower()]
    return spelled


def parse_arguments(
    config_class: typing.Any,
    arguments: Sequence[str],
    default: typing.Any = None,
    program: str | None = None,
) -> typing.Any:
    """Make a config from the command line; fields without a default are positional.

    Args:
        config_class: a dataclass with a docstring below each field.
        arguments: the command line without the command's name.
        default: an instance whose fields the command line changes.
        program: name in the help; None takes the script's.

    Returns:
        An instance of the class.

    Raises:
        InputError: for what the parser refuses, in one line, with the nearest option.
        SystemExit: with 0 after ``--help``.
    """
    import tyro  # a spawned worker imports this module too, and parses nothing

    from .options import build_registry

    shape = config_class if default is None else default
    _check_choices(arguments, choice_options(shape))
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said), build_registry():
            return tyro.cli(
                config_class,
                prog=program or program_name(),
                args=spell_booleans(arguments, boolean_options(shape)),
                default=tyro.MISSING_NONPROP if default is None else default,
                config=(tyro.conf.FlagConversionOff, tyro.conf.PositionalRequiredArgs),
            )
    except SystemExit as end:
        # What a config refuses is said in one line, and so is what the parser says in a box.
        cause: BaseException | None = end.__context__
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__context__
        if cause is not None:
            raise cause from None
        if not said.getvalue():
            raise  # help
        _refuse_unknown(arguments, shape)
        name = program or program_name()
        raise InputError(f"{_flatten_box(said.getvalue())}; {name} --help shows all") from None


def _refuse_unknown(arguments: Sequence[str], shape: typing.Any) -> None:
    """Name the first option that a config has not, with the nearest that it has."""
    known = {_option(item) for item in walk(shape)} | {"--help"}
    # A part of a config may have no name of its own in front.
    endings = {f"--{name.removeprefix('--').partition('.')[2]}" for name in known}
    for word in arguments:
        name = word.partition("=")[0].replace("_", "-")
        if not name.startswith("--") or name == "--" or name in known | endings:
            continue
        close = _nearest_option(name, known)
        raise InputError(f"option {name} is not known{close}")


def _nearest_option(name: str, known: Collection[str]) -> str:
    """Say which option is nearest: one that begins like it, or is spelled nearly so."""
    longer = sorted((one for one in known if one.startswith(name)), key=len)
    close = longer[:1] or difflib.get_close_matches(name, known, n=1)
    return f"; did you mean {close[0]}?" if close else ""


def _flatten_box(text: str) -> str:
    """Return what the parser says in a box of several lines as one line."""
    lines = [line.strip("\u2502 ") for line in _ESCAPES.sub("", text).splitlines()]
    said = [line for line in lines if line and line[0] not in "\u256d\u2570\u2500"]
    ends = (i for i, line in enumerate(said) if line.startswith(_ASIDE))
    return " ".join(said[: next(ends, None)]).rstrip(".")


def refuse_repeated(arguments: Sequence[str], option: str) -> None:
    """Refuse an option of several words that comes twice: the parser would take the last alone.

    Args:
        arguments: the command line.
        option: ``--name``.

    Raises:
        InputError: if it is there more than once.
    """
    if sum(word.partition("=")[0] == option for word in arguments) > 1:
        raise InputError(f"{option} is given more than once; name all behind one of them")


def _check_choices(arguments: Sequence[str], options: dict[str, tuple[str, ...]]) -> None:
    for word, following in itertools.pairwise([*arguments, ""]):
        name, has_value, value = word.partition("=")
        name = name.replace("_", "-")
        value = value if has_value else following
        if name in options and value not in options[name]:
            raise InputError(f"{name} ('{value}') is not known{nearest(value, options[name])}")


def check_json_path(path: Path | None) -> None:
    """Make sure, before hours of work, that a ``--json`` file can lie where it is wanted.

    Raises:
        InputError: if it cannot.
    """
    if path is not None:
        check_file_place(path, "--json")


class AboveBars(logging.Handler):
    """Writes lines above the bars; a bar leaves the cursor at the end of its own."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record's line."""
        from tqdm import tqdm

        try:
            tqdm.write(self.format(record), file=sys.stderr)
        except Exception:
            self.handleError(record)


def show_log(level: int) -> None:
    """Show what is logged as lines on stderr.

    Args:
        level: from which on.
    """
    logging.basicConfig(level=level, format="%(message)s", handlers=[AboveBars()])


@contextlib.contextmanager
def progress_bar(task: str, unit: str = "img") -> Iterator[Progress]:
    """Show one bar with rate and time to go, from the first report on.

    Args:
        task: named before it.
        unit: of what is reported; B are bytes.

    Yields:
        What to report to. What the first report counts was done before, and is no part of the rate.
    """
    from tqdm import tqdm

    bar: tqdm | None = None

    def advance(done: int, total: int) -> None:
        nonlocal bar
        if bar is None:
            scale = unit == "B"
            bar = tqdm(
                total=total,
                initial=done,
                unit=unit,
                unit_scale=scale,
                desc=task,
                dynamic_ncols=True,
            )
        else:
            bar.update(done)

    try:
        yield advance
    finally:
        if bar is not None:
            bar.close()
