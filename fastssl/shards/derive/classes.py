"""Class lists of several datasets brought together: which label of which becomes which."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...counts import spell_number
from ...errors import InputError


@dataclass(frozen=True)
class ClassList:
    """The classes of one dataset or source."""

    where: str
    """What to call it in a message."""
    names: tuple[str, ...]
    """Name of each label; empty without labels, or where the labels have no names."""
    has_labels: bool
    """Whether any sample has a label."""

    @property
    def is_nameless(self) -> bool:
        """Whether there are labels and nobody knows what they mean."""
        return self.has_labels and not self.names


def _describe_difference(first: ClassList, other: ClassList) -> str:
    missing = [name for name in other.names if name not in set(first.names)]
    if missing:
        only = f"{missing[0]!r} is in {other.where} alone"
    else:
        lost = [name for name in first.names if name not in set(other.names)]
        only = f"{lost[0]!r} is in {first.where} alone" if lost else "their order differs"
    num = spell_number(len(first.names), "class", "classes")
    sizes = f"{first.where} has {num}, {other.where} {len(other.names)}"
    return f"{sizes}: {only}"


def unite_classes(
    lists: Sequence[ClassList], merge: bool
) -> tuple[tuple[str, ...], list[tuple[int, ...] | None]]:
    """Bring class lists together by name; the first list's labels stay what they are.

    Args:
        lists: at least one. Those without labels fit any other.
        merge: allow lists that differ; new names follow in their own order.

    Returns:
        The names of all classes, and for each list the new label by the old one; None where labels
        keep their numbers.

    Raises:
        InputError: if lists differ and ``merge`` is false, or one has labels without names and
            another has names.
    """
    labelled = [one for one in lists if one.names or one.has_labels]
    if not labelled:
        return (), [None] * len(lists)
    first = labelled[0]
    for other in labelled[1:]:
        if other.is_nameless != first.is_nameless:
            nameless, named = (first, other) if first.is_nameless else (other, first)
            raise InputError(
                f"{nameless.where} has labels without class names, {named.where} has "
                f"{len(named.names)} names, so nobody knows which label is which; convert the "
                "images again with class names"
            )
        if other.names != first.names and not merge:
            raise InputError(
                f"class lists differ: {_describe_difference(first, other)}; bring them together "
                "by name with --merge-classes true, or choose datasets of the same classes"
            )
    names = list(dict.fromkeys(name for one in labelled for name in one.names))
    numbers = {name: number for number, name in enumerate(names)}
    maps: list[tuple[int, ...] | None] = []
    for one in lists:
        new = tuple(numbers[name] for name in one.names)
        maps.append(None if new == tuple(range(len(new))) else new)
    return tuple(names), maps


def compose_maps(
    first: tuple[int, ...] | None, second: tuple[int, ...] | None
) -> tuple[int, ...] | None:
    """Return the map that leads through one and then another; None maps a label to itself.

    -1 stands for a class without samples here and stays -1.
    """
    if first is None or second is None:
        return second if first is None else first
    return tuple(-1 if label < 0 else second[label] for label in first)
