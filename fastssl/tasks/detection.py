"""Detection: which objects are where, by Fast or Faster R-CNN on a trunk (Goyal et al. 2019).

Pictures come whole, in the upper left corner of a black square; a micro-batch is cut to the largest
of them, and what is no picture is zero behind the normalisation, as a convolution's border is.

Shape legend: B images, L side of the square, H W pixels of the largest picture, P proposals,
M most objects of a picture, R regions that are learnt from, C classes, G places a side that the map
of a square may have, K anchors a place.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import torch
from torch import Tensor

from ..batch import Batch
from ..counts import spell_number
from ..errors import InputError
from ..fields import Checked, Count, Range, Share
from ..models import RegionTrunk, Trunk
from ..models.detection import (
    AnswerRule,
    Found,
    Pooling,
    RegionHead,
    choose_answers,
    find_map_form,
    fold_norms,
    pool_regions,
    run_in_parts,
    score_regions,
    take_apart,
)
from ..models.input_spec import INPUT_KEY, InputSpec
from ..models.region_sampling import Regions, SamplingRule, sample_regions
from ..randomness import Stream, draw_words, to_unit
from ..shards import ShardDataset
from ..shards.targets import OBJECTS
from ..views import MAX_SIDE, ViewSpec
from .base import Inputs, Metric, Task, check_side
from .detection_pictures import draw_found
from .detection_views import Places, find_places, make_images
from .pictures import Picture

if TYPE_CHECKING:
    from ..models.proposer import RegionProposer

PROPOSALS = "proposals"
"""Name of the target that Fast R-CNN needs."""
DetectorName = Literal["fast_rcnn", "faster_rcnn"]
_REGIONS_AT_ONCE = 512
# Behind all numbers that regions may have.
_FIRST_ANCHOR_DRAW = 1 << 20
_Pixels = Annotated[int, Range(1, MAX_SIDE)]


@dataclass(frozen=True)
class DetectionConfig(Checked, prefix="task."):
    """Views, network and rules, those of the Detectron release that Goyal et al. 2019 used."""

    name: Literal["detection"] = "detection"
    """Task."""
    detector: DetectorName = "fast_rcnn"
    """fast_rcnn is given proposals; faster_rcnn makes them from the same map."""
    input: str = ""
    """What the trunk takes, as its file says it; "" is ImageNet's mean and deviation."""
    short: Annotated[tuple[int, ...], Range(1, MAX_SIDE)] = (600,)
    """Short side of a picture that is learnt from, in pixels; of several one is drawn."""
    test_short: _Pixels = 600
    """Short side of a picture that is tested on, in pixels."""
    long: _Pixels = 1000
    """Most pixels of a long side, whatever that leaves of the short one."""
    flip_probability: Share = 0.5
    """Share of pictures mirrored."""
    pooling: Pooling = "roi_pool"
    """How regions are cut out of the trunk's map: roi_pool by maxima in whole places, roi_align by
    bilinear samples."""
    max_proposals: Annotated[int, Range(1, 100_000)] = 2000
    """Proposals of a picture that are looked at, the first; of faster_rcnn in training."""
    test_proposals: Annotated[int, Range(1, 100_000)] = 1000
    """Those of faster_rcnn in tests."""
    anchors: Annotated[int, Range(1, 1_000_000)] = 12_000
    """Best anchors that faster_rcnn makes them of in training."""
    test_anchors: Annotated[int, Range(1, 1_000_000)] = 2000
    """Those of tests."""
    anchor_sizes: Annotated[tuple[int, ...], Range(1, MAX_SIDE)] = (64, 128, 256, 512)
    """Roots of the areas of anchors in pixels, each in three ratios of the sides."""
    regions: Annotated[int, Range(1, 100_000)] = 64
    """Regions of a picture that are learnt from."""
    object_share: Share = 0.25
    """Most of them that are of objects; the others are background."""
    overlap: Annotated[float, Range(0, 1, without=0)] = 0.5
    """Least intersection over union with an object of a region of it."""
    beta: Annotated[float, Range(0, 1000, without=0)] = 1.0
    """Error of a box's code where its loss goes over from square to linear."""
    min_score: Share = 0.05
    """Boxes that are answered have a greater score."""
    nms_overlap: Share = 0.3
    """Of two boxes of a class that overlap more than this the lower one is left out."""
    max_detections: Count = 100
    """Boxes that are answered for a picture, the best."""

    def check(self) -> None:
        """Refuse sides that do not fit, and statistics of a picture by itself."""
        for field, side in (("short", max(self.short, default=0)), ("test_short", self.test_short)):
            if not 1 <= side <= self.long:
                raise InputError(f"task.{field} ({side}) must lie in 1 .. task.long ({self.long})")
        if self.input_spec.kind == "standardized":
            raise InputError(
                "task.input takes each image's own mean and deviation, which a picture in a black "
                "square does not have; give a trunk with another input, or --scale imagenet"
            )

    @property
    def input_spec(self) -> InputSpec:
        """What the trunk takes."""
        return InputSpec.from_metadata({INPUT_KEY: self.input}) if self.input else InputSpec()

    @property
    def view(self) -> ViewSpec:
        """What to ask of the loader to learn from."""
        return ViewSpec.fit(self.short if len(self.short) > 1 else self.short[0], self.long)

    @property
    def test_view(self) -> ViewSpec:
        """What to ask of the loader to test on."""
        return ViewSpec.fit(self.test_short, self.long)

    @property
    def sampling(self) -> SamplingRule:
        """Which regions are learnt from."""
        return SamplingRule(self.regions, self.object_share, self.overlap)

    @property
    def answers(self) -> AnswerRule:
        """Which boxes are answered."""
        return AnswerRule(self.min_score, self.nms_overlap, self.max_detections)


class Detection(Task):
    """A trunk taken apart, its batch norms fixed, and a head on regions of its map."""

    needs_labels = True
    targets = (OBJECTS,)
    tested = "test_ap50"
    learns_trunk = False  # as part of a detector, with its normalisations folded
    trunk: RegionTrunk
    metrics: tuple[Metric, ...] = (
        Metric("loss_class", "nats", "cross-entropy of the regions' classes"),
        Metric("loss_box", "", "smooth L1 error of the boxes' codes, over all regions"),
        Metric("region_accuracy", "share", "regions whose class, or background, is found"),
        Metric("object_share", "share", "regions that are of an object"),
        Metric("test_ap50", "share", "mean average precision on test pictures at IoU 0.5"),
        Metric("test_ap50_11", "share", "the same by 11 points, as VOC 2007 has it"),
    )

    def __init__(self, config: DetectionConfig, trunk: Trunk, num_classes: int) -> None:
        """Build the head.

        Args:
            config: views, network and rules.
            trunk: its batch norms are folded, in place.
            num_classes: C, of the dataset.

        Raises:
            InputError: if the trunk cannot be taken apart, or does not take pictures of this size.
            ImportError: without torchvision.
        """
        super().__init__()
        if num_classes < 1:
            raise InputError(
                "task (detection) needs the classes of objects, the dataset has none; make it of a "
                "folder in VOC's layout or of a COCO file (docs/shards.md)"
            )
        self.config = config
        self.num_classes = num_classes
        self.trunk = take_apart(trunk)
        for field, side in (("short", min(config.short)), ("test_short", config.test_short)):
            check_side(field, side, trunk)
        fold_norms(self.trunk)
        channels, self.scale = find_map_form(self.trunk)
        self.views = (config.view,)
        self.input_spec = config.input_spec
        self.head = RegionHead(trunk.num_features, num_classes)
        self.proposer: RegionProposer | None = None
        if config.detector == "faster_rcnn":
            self.proposer = _build_proposer(channels, self.scale, config.anchor_sizes)
            self.metrics = (*type(self).metrics, *_PROPOSER_METRICS)

    def check_data(self, dataset: ShardDataset, num_samples: int) -> None:
        """Refuse a dataset without objects."""
        check_objects(dataset, num_samples)

    def make_outline_targets(self, num: int) -> dict[str, Tensor]:
        """Return no object and no proposal for ``num`` black images."""
        return {OBJECTS: torch.zeros(num, 1, 6), PROPOSALS: torch.zeros(num, 1, 4)}

    # ------------------------------------------------------------------ learning

    @torch.no_grad()
    def prepare(self, batch: Batch, seed: int, dtype: torch.dtype) -> Inputs:
        """Cut, mirror, normalise, and draw.

        Returns:
            ``images`` (B, C, H, W); in their pixels ``objects`` (B, M, 4) with ``classes`` int64
            (B, M), -1 for none, and ``proposals`` (B, P, 4), of Faster R-CNN the ``sizes`` (B, 2)
            in their place; ``draws`` (B, P + M) and ``anchor_draws`` (B, G, G, K) of what may be
            learnt from.
        """
        config, device = self.config, batch.images.device
        places = find_places(batch, config.view, seed, config.flip_probability)
        objects = _take(batch, OBJECTS)
        # What is difficult is no object to learn, as in Detectron, and no object to avoid.
        classes = torch.where(objects[..., 5] == 0, objects[..., 4], -1.0).long()
        found = {"objects": places.move(objects[..., :4]), "classes": classes}
        num = config.max_proposals
        if self.proposer is None:
            found["proposals"] = places.move(self._take_proposals(batch))
            num = found["proposals"].shape[1]
        else:
            found["sizes"] = places.sizes_B2
            side = math.ceil(config.long * self.scale) + 1
            shape = (side, side, self.proposer.num_anchors)
            draws = _draw(batch, seed, math.prod(shape), _FIRST_ANCHOR_DRAW)
            found["anchor_draws"] = draws.unflatten(1, shape)
        found["draws"] = _draw(batch, seed, num + objects.shape[1])
        inputs = {name: value.to(device, non_blocking=True) for name, value in found.items()}
        return {"images": make_images(batch.images[:, 0], places, self.input_spec, dtype), **inputs}

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """Return ``loss``, its parts, and how many regions are right."""
        maps = self.trunk.forward_map(inputs["images"])
        scores: dict[str, Tensor] = {}
        if self.proposer is not None:
            scores, inputs = self._propose(self.proposer, maps, inputs)
        regions = self.choose_regions(inputs)
        logits, codes = self.ask(maps, regions.boxes)
        labels, targets = regions.labels.flatten(), regions.targets.flatten(0, 1)
        scores |= score_regions(logits, codes, labels, targets, self.config.beta)
        losses = [value for name, value in scores.items() if name.startswith("loss_")]
        return {"loss": torch.stack(losses).sum(), **scores}

    def choose_regions(self, inputs: Inputs) -> Regions:
        """Return the regions that are learnt from, of what ``prepare`` gave, with proposals."""
        return sample_regions(
            inputs["proposals"],
            inputs["objects"],
            inputs["classes"],
            inputs["draws"],
            self.config.sampling,
        )

    def _propose(
        self, proposer: RegionProposer, maps: Tensor, inputs: Inputs
    ) -> tuple[dict[str, Tensor], Inputs]:
        """Return the losses of the proposals' own network, and inputs with its proposals."""
        config, sizes = self.config, inputs["sizes"]
        logits, codes = proposer.ask(maps)
        anchors = proposer.list_anchors(maps)
        height, width = maps.shape[-2:]
        draws = inputs["anchor_draws"][:, :height, :width].flatten(1)
        learnt = proposer.sample_anchors(
            anchors, sizes, inputs["objects"], inputs["classes"], draws
        )
        proposals = proposer.choose(
            logits.detach(), codes.detach(), anchors, sizes, config.anchors, config.max_proposals
        )
        return proposer.score(logits, codes, *learnt), {**inputs, "proposals": proposals}

    def ask(self, maps: Tensor, regions_BR4: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B * R, Q) and box codes (B * R, Q, 4) of regions of maps."""
        pooled = pool_regions(
            maps, regions_BR4, self.trunk.region_side, self.scale, self.config.pooling
        )
        return self.head(self.trunk.forward_regions(pooled))

    def chance(self) -> dict[str, float]:
        """Return what it is to call every region background."""
        return {"region_accuracy": 1 - self.config.object_share}

    # ------------------------------------------------------------------ answers

    @torch.no_grad()
    def detect(self, batch: Batch, view: ViewSpec, seed: int | None = None) -> list[Found]:
        """Return what is found in each picture, boxes in pixels of the stored pictures.

        Each picture by itself, so that it does not matter which others stand beside it.

        Args:
            batch: from the loader, with this view.
            view: ``config.test_view``, or that which is learnt from.
            seed: the run's, where the view draws a side.
        """
        places = find_places(batch, view, seed)
        proposals = places.move(self._take_proposals(batch)) if self.proposer is None else None
        return [
            self._detect_one(
                batch.images[row : row + 1, 0],
                places.rows(row, row + 1),
                None if proposals is None else proposals[row],
            )
            for row in range(len(batch))
        ]

    def _detect_one(self, image: Tensor, place: Places, regions: Tensor | None) -> Found:
        maps = self.trunk.forward_map(make_images(image, place, self.input_spec))
        if self.proposer is not None:
            sizes, config = place.sizes_B2.to(maps.device), self.config
            proposals = self.proposer.propose(
                maps, sizes, config.test_anchors, config.test_proposals
            )
            regions = proposals[0]
        assert regions is not None  # there are proposals, or there is a proposer
        regions = regions[((regions[:, 2:] - regions[:, :2]) > 0).all(1)].to(maps.device)
        if not len(regions):
            none = torch.zeros(0)
            return Found(none.view(0, 4), none, none.long())
        logits, codes = run_in_parts(
            lambda part: self.ask(maps, part[None]), regions, _REGIONS_AT_ONCE
        )
        width, height = place.sizes_B2[0].tolist()
        found = choose_answers(logits, codes, regions, (width, height), self.config.answers)
        boxes = found.boxes.cpu() / place.scales_B2.repeat(1, 2)
        return Found(boxes, found.scores.cpu(), found.classes.cpu())

    def draw_pictures(self, batch: Batch, seed: int, count: int) -> list[Picture]:
        """Show objects, boxes that were found, and what was missed."""
        shown = batch.rows(0, min(count, len(batch)))
        view = self.config.view
        with self.answering():
            found = self.detect(shown, view, seed)
        places = find_places(shown, view, seed)
        objects = _take(shown, OBJECTS)
        moved = places.move(objects[..., :4])
        pictures = []
        for row, answer in enumerate(found):
            width, height = places.sizes_B2[row].tolist()
            boxes = answer.boxes * places.scales_B2[row].repeat(2)
            pixels: np.ndarray = shown.images[row, 0, :height, :width].cpu().numpy()
            pictures.append(
                draw_found(
                    pixels,
                    torch.cat((moved[row], objects[row, :, 4:]), 1),
                    Found(boxes, answer.scores, answer.classes),
                    self.class_names,
                )
            )
        return pictures

    def _take_proposals(self, batch: Batch) -> Tensor:
        return _take(batch, PROPOSALS)[:, : self.config.max_proposals]


_PROPOSER_METRICS = (
    Metric("loss_anchor", "nats", "cross-entropy of whether anchors hold an object"),
    Metric("loss_anchor_box", "", "smooth L1 error of the boxes' codes of anchors"),
)


def _build_proposer(channels: int, scale: float, sizes: tuple[int, ...]) -> RegionProposer:
    from ..models.proposer import RegionProposer  # it makes an operator, which others do not need

    return RegionProposer(channels, scale, sizes)


def _draw(batch: Batch, seed: int, num: int, first: int = 0) -> Tensor:
    """Return numbers in 0 .. 1 for what may be learnt from: float32 (B, num)."""
    epochs, ids = batch.epochs.numpy(), batch.sample_ids.numpy()
    return torch.from_numpy(to_unit(draw_words(seed, epochs, ids, Stream.REGION, num, first)))


def _take(batch: Batch, name: str) -> Tensor:
    found: Any = batch.targets.get(name)
    if found is None:
        raise ValueError(f"batch.targets['{name}'] (None) must be given to task detection")
    return found


def check_objects(dataset: ShardDataset, num_samples: int) -> None:
    """See that a dataset's pictures have objects.

    Args:
        dataset: has the target.
        num_samples: samples with ids below this are used.

    Raises:
        InputError: if none has, or a class is none of the dataset's.
    """
    remedy = "make it of a folder in VOC's layout or of a COCO file (docs/shards.md)"
    if OBJECTS not in dataset.targets:
        has = ", ".join(dataset.targets) or "none"
        raise InputError(
            f"{dataset.path} has no target '{OBJECTS}', boxes of what is in its pictures (targets: "
            f"{has}); {remedy}"
        )
    rows = dataset.targets[OBJECTS]
    if rows.dtype != np.float32 or rows.ndim != 3 or rows.shape[2] != 6:
        raise InputError(
            f"target '{OBJECTS}' of {dataset.path} is {rows.dtype} of shape {rows.shape[1:]} a "
            f"picture, wanted float32 of shape (most, 6); {remedy}"
        )
    classes = np.asarray(rows[:num_samples, :, 4])
    if not (classes >= 0).any():
        raise InputError(f"no picture of {dataset.path} has an object; {remedy}")
    if classes.max() >= len(dataset.class_names):
        raise InputError(
            f"target '{OBJECTS}' of {dataset.path} has class {classes.max():g}, the dataset has "
            f"{spell_number(len(dataset.class_names), 'class', 'classes')}; {remedy}"
        )
