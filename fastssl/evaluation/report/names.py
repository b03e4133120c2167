"""Names of lines: what tells the trunks of a chart apart, and no more; the order of layers."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import PurePath

from ...runs.facts import RANDOM
from .entries import Entry

_ORDER = (
    "after_root conv1 pool1 conv2 pool2 conv3 conv4 conv5 pool5 "
    "res2 res3 res4 res5 layer1 layer2 layer3 layer4 block1 block2 block3 block4 block5 "
    "fc6 fc7 avgpool pre_logits logits"
).split()


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
    names = {}
    for key, of_one in parts.items():
        said = [part for part, is_said in zip(of_one, differs, strict=True) if is_said and part]
        names[key] = ", ".join(said) or of_one[1] or _recipe(groups[key][0])
    for key, name in list(names.items()):
        if list(names.values()).count(name) > 1:
            step = groups[key][0].result.step
            names[key] = f"{name}, {_recipe(groups[key][0])}, step {step:,}"
    return names


def order_layers(entries: Iterable[Entry]) -> dict[str, int]:
    """Return the place of each layer in the network: the known ones, then as results name them."""
    found = dict.fromkeys(entry.result.layer for entry in entries if entry.result.layer)
    order = [*_ORDER, *(layer for layer in found if layer not in _ORDER)]
    return {layer: number for number, layer in enumerate(order)}


def _list_parts(entry: Entry, has_sizes: bool) -> tuple[str, ...]:
    facts = entry.facts
    if facts is None:
        return (_recipe(entry), "", "", "", "", "")
    data = facts.data if has_sizes else PurePath(facts.family).name
    trunk = f"random {facts.trunk}" if facts.pretext == RANDOM else facts.trunk
    return (
        "" if facts.pretext == RANDOM else facts.pretext.replace("_", " "),
        trunk,
        f"x{facts.width}",
        data if facts.pretext != RANDOM else "",
        f"{facts.difficulty_name} {facts.difficulty:,}" if facts.difficulty else "",
        facts.course,
    )


def _recipe(entry: Entry) -> str:
    return entry.result.recipe or "a trunk without a name"
