"""What makes a run itself, and how two of them differ."""

from __future__ import annotations

from typing import Any

from ..config import RunConfig, flatten
from ..fields import walk


def identity(
    config: RunConfig,
    dataset_digest: str,
    trunk_digest: str | None = None,
    origin: str | None = None,
) -> dict[str, Any]:
    """Return what makes the run itself: every field that is not free, and the dataset's digest.

    The place of the data, of the run and of what it starts from may change; their content may not.

    Args:
        config: the run.
        dataset_digest: of its data.
        trunk_digest: of the trunk at ``trunk_from``, whose place it takes.
        origin: name of the state at ``continue_from``, whose place it takes.
    """
    free_names = {item.name for item in walk(config) if item.is_free}
    if config.spike.skip_steps:  # what leaps decides what is learnt
        free_names -= {"spike.threshold", "spike.window"}
    flat = {name: value for name, value in flatten(config).items() if name not in free_names}
    content = {"trunk_from": trunk_digest, "continue_from": origin}
    return {**flat, **content, "dataset_digest": dataset_digest}


def list_differences(
    old: dict[str, Any], new: dict[str, Any], defaults: dict[str, Any]
) -> dict[str, str]:
    """Return where two identities differ: by field, its name with the old and the new value.

    Args:
        old: of a run when it began.
        new: of another.
        defaults: what a field that the old one lacks, for it is younger than the run, stood at.
    """
    old = {key: value for key, value in defaults.items() if key in new} | old
    absent = object()
    return {
        key: f"{key} (old {old.get(key, 'absent')!r}, new {new.get(key, 'absent')!r})"
        for key in dict.fromkeys((*old, *new))
        if old.get(key, absent) != new.get(key, absent)
    }


def may_change_when_continued(name: str) -> bool:
    """Return whether a run that begins with another's state may have a value of its own there.

    Args:
        name: of a field of the identity.
    """
    # The optimiser's other numbers are part of its state.
    own = ("recipe", "device", "trunk_from", "continue_from", "optim.lr", "optim.lr_batch_size")
    return name in own or name.startswith(("schedule.", "checkpoint.", "spike."))
