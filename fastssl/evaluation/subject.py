"""The trunk that is evaluated: ours, another library's, or weights that somebody saved."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from ..counts import spell_number
from ..errors import InputError, nearest
from ..fields import Documented
from ..models import Trunk, build_trunk, digest_trunk, is_one_network, load_trunk
from ..models.export import TRUNK_NAME, find_trunk_file, is_export
from ..models.foreign import CLASSIFIERS, build_foreign, is_foreign, outline_foreign
from ..models.input_spec import SCALE_NAMES, InputSpec
from ..models.state_dicts import fit_file, load_state
from ..models.trunks import STANDARD_VGG_WIDTH, STANDARD_WIDTH
from ..runs.directory import CHECKPOINTS_NAME, CONFIG_NAME
from ..runs.result import is_name

_log = logging.getLogger(__name__)

SCRATCH = "scratch"
"""In the place of the digest of a trunk with fresh weights."""


@dataclass(frozen=True)
class Subject(Documented):
    """A trunk and what is known of it."""

    trunk: Trunk
    """On the CPU, in training mode."""
    spec: InputSpec
    """What it takes."""
    digest: str
    """Of its name, width and weights."""
    recipe: str = ""
    """That pretrained it; the trunk's name where nobody says."""
    step: int = 0
    """Steps that it was pretrained for."""
    run: Path | None = None
    """The run directory that it is of."""
    pretrained_on: str = ""
    """Digest of the dataset that it was pretrained on."""
    max_samples: int = 0
    """Images of it that it was pretrained on, where they were not all; else 0."""


def open_subject(checkpoint: Path, trunk: str = "", width: int = 0, scale: str = "") -> Subject:
    """Open the trunk to evaluate.

    Args:
        checkpoint: a run that has ended, a file that it exported, or a file of weights.
        trunk: what the weights are of, where the file does not say: a name of ``build_trunk``, or
            ``torchvision:NAME`` or ``timm:NAME``. Of a file that says it another form of the same
            network, such as one with other strides.
        width: of the trunk; 0 is the file's own, or 4.
        scale: how pixels are scaled, one of ``SCALE_NAMES``; "" is what the file or the library
            says, else ImageNet's mean and deviation.

    Returns:
        The trunk.

    Raises:
        InputError: if there is no such file, or it does not fit.
        ImportError: if the library is not installed.
    """
    if scale and scale not in SCALE_NAMES:
        raise InputError(f"scale ('{scale}') is not known{nearest(scale, SCALE_NAMES)}")
    path = find_trunk_file(checkpoint, "checkpoint")
    is_of_run = path.name == TRUNK_NAME and (path.parent / CONFIG_NAME).is_file()
    run = path.parent if is_of_run else None
    if is_export(path):
        return _open_own(path, run, trunk, width, scale)
    subject = _open_weights(path, trunk, width)
    return replace(subject, spec=InputSpec.named(scale)) if scale else subject


def open_fresh(
    checkpoint: Path, trunk: str = "", width: int = 0, scale: str = "", usual: str = "imagenet"
) -> Subject:
    """Return the outline of a trunk with fresh weights: those of a checkpoint are not taken.

    Args:
        checkpoint: whose name, width and input it has; an empty path for none.
        trunk: its name, where there is no checkpoint.
        width: 0 is the standard one.
        scale: how pixels are scaled; "" is ``usual``.
        usual: likewise.

    Raises:
        InputError: if nobody says which network it is.
    """
    if checkpoint != Path():
        subject = open_subject(checkpoint, trunk, width, scale)
        return Subject(subject.trunk, subject.spec, SCRATCH)
    if not trunk:
        raise InputError(
            "trunk (none given) must name the network that learns from scratch; set --trunk "
            "resnet9, or give --checkpoint for its name and width"
        )
    standard = STANDARD_VGG_WIDTH if trunk.startswith("vgg") else STANDARD_WIDTH
    with torch.device("meta"):
        outline = build_trunk(trunk, width or standard)
    spec = InputSpec.named(scale or usual)
    if outline.in_channels == 1 and not scale:
        spec = InputSpec("lightness")
    return Subject(outline, spec, SCRATCH)


def _open_own(path: Path, run: Path | None, name: str, width: int, scale: str) -> Subject:
    trunk, metadata = load_trunk(path)
    if width not in (0, trunk.width):
        raise InputError(
            f"width ({width}) of checkpoint {path} is {trunk.width}; leave --width away"
        )
    if name and name != trunk.name:
        if is_foreign(name) or not is_one_network(build_trunk(name, trunk.width).name, trunk.name):
            raise InputError(
                f"trunk ('{name}') is another network than that of {path}, '{trunk.name}'; leave "
                "--trunk away"
            )
        form = build_trunk(name, trunk.width)
        form.load_state_dict(trunk.state_dict())
        trunk = form
    spec = InputSpec.named(scale) if scale else InputSpec.from_metadata(metadata)
    step = _read_count(metadata, "step")
    if run is not None:
        _tell_of_later(run, step)
    recipe = metadata.get("recipe", trunk.name)
    if not is_name(recipe):
        raise InputError(
            f"{path} says that {recipe[:80]!r} pretrained it, wanted a recipe's name; export the "
            "trunk again"
        )
    return Subject(
        trunk,
        spec,
        digest_trunk(trunk),
        recipe,
        step,
        run,
        metadata.get("dataset_digest", ""),
        _read_count(metadata, "max_samples"),
    )


def _tell_of_later(run: Path, step: int) -> None:
    """Say that a run has gone on since it exported the trunk that is taken."""
    later = max((int(p.name) for p in (run / CHECKPOINTS_NAME).glob("[0-9]" * 9)), default=0)
    if later > step:
        _log.warning(
            "the trunk of %s is that of step %d, and the run is at step %d or later: it exports "
            "the later one when it ends (fastssl train ... --max-steps %d ends it there)",
            *(run, step, later, later),
        )


def _read_count(metadata: Mapping[str, str], name: str) -> int:
    text = metadata.get(name, "0")
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else 0


def _open_weights(path: Path, name: str, width: int) -> Subject:
    if not name:
        raise InputError(
            f"checkpoint ({path}) does not say what network its weights are of; name it: --trunk "
            "resnet50, torchvision:NAME or timm:NAME"
        )
    if is_foreign(name):
        outline = outline_foreign(name)
        if outline is not None:  # what does not fit costs no memory: there are networks of 2.5 GB
            fit_file(outline.network, name, path, CLASSIFIERS)
        foreign, spec = build_foreign(name)
        unused = load_state(foreign.network, name, path, CLASSIFIERS)
        trunk: Trunk = foreign
    else:
        trunk = build_trunk(name, width or 4)
        spec = InputSpec("lightness") if trunk.in_channels == 1 else InputSpec()
        unused = load_state(trunk, name, path)
    if unused:
        count = spell_number(len(unused), "tensor")
        _log.info("%s of %s that %s has no part for, such as %s", count, path, name, unused[0])
    return Subject(trunk, spec, digest_trunk(trunk), trunk.name)
