"""Parts of detectors: trunks taken apart, fixed norms, regions, losses, answers."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.models.detection import (
    NOT_SAMPLED,
    AnswerRule,
    RegionHead,
    box_coder,
    choose_answers,
    find_map_form,
    fold_norms,
    pool_regions,
    run_in_parts,
    score_regions,
    take_apart,
)
from fastssl.models.proposer import RegionProposer
from fastssl.models.region_sampling import SamplingRule, sample_regions

torchvision = pytest.importorskip("torchvision", reason="detection stands on torchvision")


def settle(trunk):
    """Give batch norms statistics and scales that are no identity."""
    for norm in trunk.modules():
        if isinstance(norm, nn.BatchNorm2d):
            nn.init.uniform_(norm.running_mean, -0.3, 0.3)
            nn.init.uniform_(norm.running_var, 0.5, 2)
            if norm.affine:
                nn.init.uniform_(norm.weight, 0.5, 1.5)
                nn.init.uniform_(norm.bias, -0.3, 0.3)
    return trunk.eval()


PARTED = ["resnet50", "resnet50_v1", "resnet50_v2", "resnet50_newell", "revnet50", "resnet9"]


@pytest.mark.parametrize("name", [*PARTED, "resnet50_color", "alexnet", "alexnet_color"])
def test_folded_norms_are_the_unfolded_trunk(name):
    trunk = settle(build_trunk(name, 1))
    side = max(64, trunk.min_side)
    images = torch.randn(2, trunk.in_channels, side, side)
    folded = copy.deepcopy(trunk)
    fold_norms(folded)
    with torch.no_grad():
        wanted, found = trunk(images), folded(images)
    # The same products in another order: rounding of float32, over the size of what comes out.
    assert (found - wanted).abs().max() <= 1e-5 * wanted.abs().max()
    assert not any(isinstance(part, nn.BatchNorm2d) for part in folded.modules())
    learnt = {name for name, _ in folded.named_parameters()}
    assert not any(".bn" in name or name.startswith("bn") for name in learnt)
    # What is fixed stays so in training mode.
    with torch.no_grad():
        assert torch.equal(folded.train()(images), found)


@pytest.mark.parametrize("name", PARTED)
def test_the_two_parts_behind_one_another_are_the_trunk(name):
    trunk = settle(build_trunk(name, 1))
    images = torch.randn(2, trunk.in_channels, 64, 64)
    with torch.no_grad():
        maps = trunk.forward_map(images)
        assert torch.equal(maps, trunk.forward_features(images)[trunk.body])
        assert torch.equal(trunk.forward_regions(maps), trunk(images))
    assert trunk.body in trunk.stages()


def test_of_an_alexnet_regions_stand_in_the_place_of_the_last_pool():
    for name, side in (("alexnet", 227), ("caffenet", 227)):
        trunk = settle(build_trunk(name, 1))
        with torch.no_grad():
            points = trunk.forward_features(torch.randn(1, 3, side, side))
            if name == "caffenet":
                assert points["pool5"].shape[-1] == trunk.region_side
            regions = trunk.forward_regions(points["pool5"])
        assert torch.equal(regions, points["pre_logits"])


@pytest.mark.parametrize(
    ("name", "channels", "scale"),
    [
        ("resnet50", 256, 1 / 16),
        ("resnet50_newell", 256, 1 / 8),
        ("resnet9", 64, 1 / 4),
        ("alexnet", 64, 1 / 8),
        ("caffenet", 64, 1 / 16),
    ],
)
def test_the_maps_scale_is_the_trunks_stride(name, channels, scale):
    assert find_map_form(build_trunk(name, 1)) == (channels, scale)


def test_a_trunk_without_two_parts_is_refused():
    with pytest.raises(InputError, match=r"'vgg19_bn' cannot be parted .* take a ResNet"):
        take_apart(build_trunk("vgg19_bn", 1))


def test_the_head_begins_as_detectrons():
    torch.manual_seed(0)
    head = RegionHead(2048, 20)
    assert float(head.classify.weight.detach().std()) == pytest.approx(0.01, rel=0.02)
    assert float(head.locate.weight.detach().std()) == pytest.approx(0.001, rel=0.02)
    assert (head.classify.bias == 0).all()
    logits, codes = head(torch.randn(3, 2048))
    assert (logits.shape, codes.shape) == ((3, 21), (3, 21, 4))


# ------------------------------------------------------------------ sampling


def draw_boxes(num, generator):
    corner = torch.rand(num, 2, generator=generator) * 150
    return torch.cat((corner, corner + 5 + torch.rand(num, 2, generator=generator) * 60), 1)


def make_scene(seed=0, num=400, most=5, images=6):
    """Draw objects and proposals, some of them close to objects."""
    generator = torch.Generator().manual_seed(seed)
    objects = draw_boxes(images * most, generator).view(images, most, 4)
    classes = torch.randint(0, 3, (images, most), generator=generator)
    classes[:, -1] = -1
    if images > 1:
        classes[0] = -1  # a picture without any
    proposals = draw_boxes(images * num, generator).view(images, num, 4)
    near = objects[:, torch.randint(0, most - 1, (num // 4,), generator=generator)]
    proposals[:, : num // 4] = near + torch.randn(near.shape, generator=generator) * 2
    proposals[1:2, 3:] = 0  # few proposals
    draws = torch.rand(images, num + most, generator=generator)
    return proposals, objects, classes, draws


def test_regions_are_sampled_by_detectrons_rule():
    proposals, objects, classes, draws = make_scene()
    found = sample_regions(proposals, objects, classes, draws, SamplingRule())
    assert found.boxes.shape == (6, 64, 4)
    box_iou = torchvision.ops.box_iou
    for image in range(2, 6):
        real = classes[image] >= 0
        assert (found.labels[image] > 0).sum() == 16  # 25 % of 64
        assert (found.labels[image] == 0).sum() == 48
        shares = box_iou(found.boxes[image], objects[image][real])
        best, which = shares.max(1)
        labels = found.labels[image]
        assert (best[labels > 0] >= 0.5).all()
        assert (best[labels == 0] < 0.5).all()
        assert torch.equal(labels[labels > 0], classes[image][real][which[labels > 0]] + 1)
        decoded = box_coder().decode_single(found.targets[image], found.boxes[image])
        near = objects[image][real][which]
        torch.testing.assert_close(decoded[labels > 0], near[labels > 0], atol=1e-3, rtol=1e-4)
        assert (found.targets[image][labels == 0] == 0).all()
        assert len(torch.unique(found.boxes[image], dim=0)) == 64  # none twice


def test_without_objects_all_is_background_and_few_candidates_leave_places_empty():
    proposals, objects, classes, draws = make_scene()
    found = sample_regions(proposals, objects, classes, draws, SamplingRule())
    assert (found.labels[0] == 0).all()
    # Three proposals and four objects, whose own boxes are candidates: each is of itself.
    labels = found.labels[1]
    assert (labels > 0).sum() >= 4
    assert (labels != NOT_SAMPLED).sum() == 7
    assert (found.boxes[1][labels == NOT_SAMPLED] == torch.tensor([0.0, 0, 1, 1])).all()
    few = sample_regions(proposals[:, :2], objects, classes, draws[:, :7], SamplingRule())
    assert few.boxes.shape == (6, 64, 4)
    assert (few.labels[:, 7:] == NOT_SAMPLED).all()


def test_each_candidate_is_as_likely_as_the_next():
    proposals, objects, classes, _ = make_scene(images=1, num=200)
    classes[:] = torch.tensor([0, 1, 2, 0, -1])
    num, rule = 1000, SamplingRule()
    draws = torch.rand(num, 205, generator=torch.Generator().manual_seed(1))
    many = [t.expand(num, *t.shape[1:]) for t in (proposals, objects, classes)]
    found = sample_regions(*many, draws, rule)
    candidates = torch.cat((proposals[0], objects[0]))
    taken = (found.boxes[:, :, None] == candidates).all(-1).any(1).float().mean(0)
    best = torchvision.ops.box_iou(candidates, objects[0, :4]).max(1).values
    for of_kind, wanted in ((best >= 0.5, 16), (best < 0.5, 48)):
        of_kind[204] = False  # no object
        share = wanted / of_kind.sum()
        # Five deviations of a mean over the draws.
        assert (taken[of_kind] - share).abs().max() < 5 * (share * (1 - share) / num).sqrt()


# ------------------------------------------------------------------ losses and answers


def test_the_losses_are_those_of_torchvisions_fast_rcnn():
    from torchvision.models.detection.roi_heads import fastrcnn_loss

    proposals, objects, classes, draws = make_scene()
    found = sample_regions(proposals, objects, classes, draws, SamplingRule())
    keep = [i for i in range(6) if i != 1]  # torchvision knows no empty places
    labels, targets = found.labels[keep].flatten(), found.targets[keep].flatten(0, 1)
    torch.manual_seed(0)
    head = RegionHead(32, 3)
    features = torch.randn(len(labels), 32) * 20
    logits, codes = head(features)
    ours = score_regions(logits, codes, labels, targets, beta=1 / 9)
    theirs = fastrcnn_loss(logits, codes.flatten(1), [labels], [targets])
    torch.testing.assert_close(ours["loss_class"], theirs[0])
    torch.testing.assert_close(ours["loss_box"], theirs[1])
    ours_gradient = torch.autograd.grad(
        ours["loss_class"] + ours["loss_box"], head.parameters(), retain_graph=True
    )
    theirs_gradient = torch.autograd.grad(sum(theirs), head.parameters())
    torch.testing.assert_close(ours_gradient, theirs_gradient)


def test_empty_places_change_no_loss():
    torch.manual_seed(0)
    logits, codes = torch.randn(8, 4), torch.randn(8, 4, 4)
    labels = torch.tensor([0, 3, 1, 0, 2, NOT_SAMPLED, NOT_SAMPLED, NOT_SAMPLED])
    targets = torch.randn(8, 4)
    whole = score_regions(logits, codes, labels, targets, 1.0)
    part = score_regions(logits[:5], codes[:5], labels[:5], targets[:5], 1.0)
    torch.testing.assert_close(whole, part)
    assert whole["object_share"] == pytest.approx(0.6)
    nothing = score_regions(logits, codes, torch.full((8,), NOT_SAMPLED), targets, 1.0)
    assert nothing["loss_class"] == nothing["loss_box"] == 0


def test_the_answers_are_those_of_torchvisions_heads():
    from torchvision.models.detection.roi_heads import RoIHeads

    theirs = RoIHeads(None, None, None, 0.5, 0.5, 64, 0.25, None, 0.05, 0.3, 100)
    generator = torch.Generator().manual_seed(3)
    regions = draw_boxes(300, generator)
    logits = torch.randn(300, 4, generator=generator) * 2
    codes = torch.randn(300, 4, 4, generator=generator)
    boxes, scores, labels = theirs.postprocess_detections(
        logits, codes.flatten(1), [regions], [(180, 200)]
    )
    found = choose_answers(logits, codes, regions, (200, 180), AnswerRule())
    assert len(found.scores) == 100
    torch.testing.assert_close(found.scores, scores[0])
    torch.testing.assert_close(found.boxes, boxes[0])
    assert torch.equal(found.classes, labels[0] - 1)


def test_regions_are_asked_about_in_parts():
    regions = torch.arange(28.0).view(7, 4)
    seen = []

    def ask(part):
        seen.append(len(part))
        return part[:, :2], part[:, None]

    logits, codes = run_in_parts(ask, regions, 3)
    assert seen == [3, 3, 1]
    assert torch.equal(logits, regions[:, :2])
    assert torch.equal(codes[:, 0], regions)


@pytest.mark.parametrize("pooling", ["roi_pool", "roi_align"])
def test_regions_of_a_constant_map_are_constant_in_every_format(pooling):
    maps = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 3, 20, 20)
    regions = torch.tensor([[[16.0, 16, 160, 200]], [[0, 0, 64, 64]]])
    for dtype in (torch.float32, torch.bfloat16):
        pooled = pool_regions(maps.to(dtype), regions, 14, 1 / 16, pooling)
        assert (pooled.shape, pooled.dtype) == ((2, 3, 14, 14), dtype)
        # Weights of bilinear samples sum to one but for rounding.
        torch.testing.assert_close(pooled[0], torch.ones_like(pooled[0]))
        torch.testing.assert_close(pooled[1], torch.full_like(pooled[1], 2))


# ------------------------------------------------------------------ proposals


def make_proposer():
    torch.manual_seed(0)
    return RegionProposer(8, 1 / 16, (32, 64))


def test_anchors_stand_at_the_strides_and_answers_in_their_order():
    proposer = make_proposer()
    anchors = proposer.list_anchors(torch.zeros(1, 8, 3, 5))
    assert anchors.shape == (3 * 5 * 6, 4)
    centres = (anchors[:, :2] + anchors[:, 2:]).view(3, 5, 6, 2) / 2
    assert (centres[..., 0] == 16 * torch.arange(5)[None, :, None]).all()
    assert (centres[..., 1] == 16 * torch.arange(3)[:, None, None]).all()
    sides = (anchors[:, 2:] - anchors[:, :2]).view(15, 6, 2)[0]
    assert (sides[:, 1] / sides[:, 0]).tolist() == pytest.approx([0.5, 0.5, 1, 1, 2, 2], abs=0.1)
    maps = torch.randn(2, 8, 3, 5)
    logits, codes = proposer.ask(maps)
    (raw,), (boxes,) = proposer.head([maps])
    place = (1 * 5 + 3) * 6 + 4
    assert torch.equal(logits[:, place], raw[:, 4, 1, 3])
    assert torch.equal(codes[:, place], boxes[:, 16:20, 1, 3])


def test_anchors_are_sampled_by_detectrons_rule_and_lost_as_torchvision_has_it():
    from torchvision.models.detection.rpn import RegionProposalNetwork

    proposer = make_proposer()
    _, objects, classes, _ = make_scene()
    maps = torch.randn(6, 8, 14, 14)
    sizes = torch.tensor([[210, 190]]).expand(6, 2)
    anchors = proposer.list_anchors(maps)
    draws = torch.rand(6, len(anchors), generator=torch.Generator().manual_seed(2))
    labels, targets = proposer.sample_anchors(anchors, sizes, objects, classes, draws)
    assert ((labels >= 0).sum(1) == 256).all()
    assert (labels[0] <= 0).all()  # no object
    for image in range(1, 6):
        own = objects[image][classes[image] >= 0]
        shares = torchvision.ops.box_iou(anchors, own)
        assert (shares[labels[image] == 0] < 0.3).all()
        inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2:] <= sizes[0]).all(1)
        assert inside[labels[image] >= 0].all()
        inner = torch.where(inside[:, None], shares, 0)
        is_best = ((inner == inner.max(0).values) & (inner > 0)).any(1)
        assert torch.equal(labels[image] == 1, is_best | (inner >= 0.7).any(1))
        assert (labels[image] == 1).sum() <= 128
    logits, codes = proposer.ask(maps)
    ours = proposer.score(logits, codes, labels, targets)
    theirs = RegionProposalNetwork(None, None, 0.7, 0.3, 256, 0.5, {}, {}, 0.7)
    theirs.fg_bg_sampler = lambda labels: (
        [(own == 1).byte() for own in labels],
        [(own == 0).byte() for own in labels],
    )
    wanted = theirs.compute_loss(
        logits.reshape(-1, 1), codes.flatten(0, 1), list(labels.float()), list(targets)
    )
    torch.testing.assert_close((ours["loss_anchor"], ours["loss_anchor_box"]), wanted)


def test_proposals_are_those_of_torchvision():
    from torchvision.models.detection.rpn import RegionProposalNetwork

    proposer = make_proposer()
    torch.nn.init.normal_(proposer.head.bbox_pred.weight, std=0.3)
    maps = torch.randn(2, 8, 9, 12)
    sizes = torch.tensor([[192, 144], [150, 144]])
    counts = {"training": 300, "testing": 300}
    after = {"training": 80, "testing": 80}
    theirs = RegionProposalNetwork(None, None, 0.7, 0.3, 256, 0.5, counts, after, 0.7)
    anchors = proposer.list_anchors(maps)
    logits, codes = proposer.ask(maps)
    decoded = box_coder((1.0, 1.0, 1.0, 1.0)).decode(codes.flatten(0, 1), [anchors, anchors])
    wanted, _ = theirs.filter_proposals(
        decoded.view(2, -1, 4), logits, [(144, 192), (144, 150)], [len(anchors)]
    )
    found = proposer.propose(maps, sizes, 300, 80)
    assert found.shape == (2, 80, 4)
    for own, boxes in zip(found, wanted, strict=True):
        torch.testing.assert_close(own[: len(boxes)], boxes, atol=1e-3, rtol=1e-5)
        assert (own[len(boxes) :] == 0).all()
    torch.library.opcheck(
        torch.ops.fastssl.keep_best_regions, (found.detach(), torch.rand(2, 80), 0.5, 20)
    )
