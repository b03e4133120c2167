"""Files that a task's config names: their content belongs to the run, their place does not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..errors import InputError
from ..system.files import sha256_of


def note_checksum(config: Any, name: str, remedy: str) -> None:
    """Write the SHA-256 of a file beside its path, or see that it is the one that stands there.

    Args:
        config: a frozen dataclass with the fields ``<name>_file`` and ``<name>_sha256``.
        name: of the two fields.
        remedy: what to do where there is no such file.

    Raises:
        InputError: if there is none, if it has another checksum, or if a checksum has no file.
    """
    path, given = getattr(config, f"{name}_file"), getattr(config, f"{name}_sha256")
    if not path:
        if given:
            raise InputError(
                f"task.{name}_sha256 ({given[:12]}...) belongs to a file; set "
                f"--task.{name}-file too"
            )
        return
    if not Path(path).is_file():
        raise InputError(f"task.{name}_file {path} is not a file; {remedy}")
    found = sha256_of(Path(path))
    if given and given != found:
        raise InputError(
            f"task.{name}_file {path} has SHA-256 {found}, task.{name}_sha256 wants {given}; give "
            "the file that the run began with"
        )
    object.__setattr__(config, f"{name}_sha256", found)
