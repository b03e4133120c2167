"""Names of lines: what tells the trunks of a chart apart, and no more; the order of layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import PurePath

from ...counts import spell_number
from ...runs.facts import RANDOM
from .entries import Entry

_ORDER = (
    "stem after_root conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5 "
    "res2 res3 res4 res5 layer1 layer2 layer3 layer4 block1 block2 block3 block4 block5 "
    "fc fc6 fc7 avgpool pre_logits logits"
).split()

_DATA, _IMAGES = 3, 4


def name_trunks(
    groups: Mapping[Hashable, Sequence[Entry]], has_sizes: bool = True
) -> dict[Hashable, str]:
    """Return a name for each group of a chart, of what differs between them.

    Args:
        groups: entries of one line each.
        has_sizes: name data sets; else what those of a line have in common.
    """
    parts = {key: _list_parts(entries[0], has_sizes) for key, entries in groups.items()}
    num = max((len(of_one) for of_one in parts.values()), default=0)
    differs = [len({of_one[i] for of_one in parts.values()}) > 1 for i in range(num)]
    if num and differs[_DATA]:
        differs[_IMAGES] = False  # the name says it
    names = {}
    for key, of_one in parts.items():
        said = [part for part, is_said in zip(of_one, differs, strict=True) if is_said and part]
        names[key] = ", ".join(said) or of_one[1] or groups[key][0].name
    times = Counter(names.values())
    return {
        key: name if times[name] == 1 else f"{name}, {groups[key][0].run or groups[key][0].name}"
        for key, name in names.items()
    }


def order_layers(entries: Iterable[Entry]) -> dict[str, int]:
    """Return the place of each layer: known ones as networks have them, others as results do."""
    order = [*_ORDER]
    before: dict[Hashable, str] = {}
    for entry in entries:
        layer = entry.result.layer
        if layer and layer not in order:
            previous = before.get(entry.trunk)
            order.insert(order.index(previous) + 1 if previous else 0, layer)
        if layer:
            before[entry.trunk] = layer
    return {layer: number for number, layer in enumerate(order)}


def _list_parts(entry: Entry, has_sizes: bool) -> tuple[str, ...]:
    facts = entry.facts
    if facts is None:
        return (entry.name, "", "", "", "", "", "")
    if facts.pretext == RANDOM:
        return ("", f"random {facts.trunk}", f"x{facts.width}", "", "", "", "")
    return (
        facts.pretext.replace("_", " "),
        facts.trunk,
        f"x{facts.width}",
        facts.data if has_sizes else PurePath(facts.family).name,
        spell_number(facts.num_images, "image") if has_sizes and facts.num_images else "",
        f"{facts.difficulty_name} {facts.difficulty:,}" if facts.difficulty else "",
        facts.course,
    )
