"""What is published of Newell and Deng 2020: Table 1, and what is said of its figures.

Accuracies over label counts are pictures in the paper, without numbers: ``FINDINGS`` has what is
said of them.
"""

from __future__ import annotations

from collections.abc import Mapping

from .cells import Published

VARIANTS = ("----", "-C--", "-C-L", "-CVL", "T---", "T-VL", "TC--", "TCVL")
"""The sets of Table 1: T texture, C colour, V viewpoint, L light where they vary."""
TABLE1: Mapping[str, tuple[float, ...]] = {
    "normal": (98.5, 96.2, 93.8, 92.1, 97.4, 91.8, 95.3, 91.5),
    "amdim": (96.9, 94.9, 89.8, 77.4, 92.5, 73.0, 80.4, 74.5),
    "cmc": (88.7, 88.9, 87.5, 72.5, 91.3, 69.9, 90.8, 69.0),
    "rotation": (31.4, 30.0, 39.7, 30.6, 32.2, 37.6, 25.4, 32.9),
    "vae": (71.7, 63.8, 51.0, 35.7, 72.8, 26.9, 36.8, 31.5),
}
"""Accuracy in per cent of a linear classifier on a frozen ResNet9 and all labels, by ``VARIANTS``;
``normal`` is a network that was trained on them as a whole."""
_LINEAR, _NORMAL = "newell20-linear-synthetic", "newell20-normal-synthetic"


def list_linear(method: str) -> tuple[Published, ...]:
    """Return a method's row of Table 1, the hardest set first.

    Args:
        method: a key of ``TABLE1``.
    """
    protocol = _NORMAL if method == "normal" else _LINEAR
    pairs = zip(VARIANTS, TABLE1[method], strict=True)
    return tuple(
        Published(value, protocol, f"variant {variant}", data=variant)
        for variant, value in reversed([*pairs])
    )


FINDINGS: Mapping[str, str] = {
    "labels_saved": "Newell and Deng 2020 find utility high with few labels and falling to zero "
    "before training from scratch saturates; which method is best depends on the task "
    "(classification and pose: CMC, segmentation: rotation, depth: AMDIM).",
    "freezing": "Newell and Deng 2020 find frozen stages to help with 100 to 250 labels alone.",
    "transfer": "Newell and Deng 2020 find transfer to be worst where pretraining lacks changes of "
    "viewpoint that the target has (AMDIM, mean over 250 to 4,000 labels).",
    "budget": "Newell and Deng 2020 find little or no loss with half the time, or with an eighth "
    "of the images at equal steps (CMC).",
    "networks": "Newell and Deng 2020 find the utility of a ResNet-50 above that of a ResNet9.",
    "ranks": "Newell and Deng 2020 find that the rank by a linear classifier is not that by "
    "fine-tuning: AMDIM leads the first and saves less than CMC and rotation.",
}
"""What is said of the report's pictures, by their names."""
