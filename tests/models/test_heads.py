"""ConcatHead: arrangements of patches."""

from __future__ import annotations

import pytest
import torch

from fastssl.models import ConcatHead, FullyConnectedHead, JointHead

NUM_PATCHES, NUM_FEATURES, HIDDEN, NUM_CLASSES = 9, 12, 10, 7


@pytest.fixture
def head():
    """A head with weights large enough to tell arrangements apart."""
    torch.manual_seed(0)
    head = ConcatHead(NUM_FEATURES, NUM_PATCHES, HIDDEN, NUM_CLASSES)
    torch.nn.init.normal_(head.classify.weight)
    return head


def test_orders_give_what_arranged_features_give(head):
    head.eval()
    features = torch.randn(4, NUM_PATCHES, NUM_FEATURES)
    orders = torch.rand(4, 3, NUM_PATCHES).argsort(-1)
    logits = head(features, orders)
    assert logits.shape == (4, 3, NUM_CLASSES)
    for k in range(3):
        arranged = torch.stack([features[b][orders[b, k]] for b in range(4)])
        # One product of matrices against another of other shape: sums in another order.
        torch.testing.assert_close(logits[:, k], head(arranged), rtol=1e-5, atol=1e-5)


def test_different_orders_get_different_logits(head):
    head.eval()
    features = torch.randn(1, NUM_PATCHES, NUM_FEATURES)
    orders = torch.stack([torch.arange(9), torch.arange(9).flip(0)])[None]
    first, second = head(features, orders)[0]
    assert (first - second).abs().max() > 0.1


def test_statistics_are_taken_over_all_patches_once(head):
    features = torch.randn(4, NUM_PATCHES, NUM_FEATURES)
    head(features, torch.rand(4, 5, NUM_PATCHES).argsort(-1))
    norm = head.project[1]
    assert norm.num_batches_tracked == 1
    projected = head.project[0](features.flatten(0, 1))
    torch.testing.assert_close(norm.running_mean, 0.1 * projected.mean(0))


def test_gradients_reach_every_patch_and_weight(head):
    features = torch.randn(4, NUM_PATCHES, NUM_FEATURES, requires_grad=True)
    head(features, torch.rand(4, 2, NUM_PATCHES).argsort(-1)).logsumexp(-1).sum().backward()
    assert (features.grad.abs().sum(-1) > 0).all()
    assert all(p.grad is not None for p in head.parameters())


def test_the_classifier_stands_on_all_projected_patches(head):
    assert head.classify.weight.shape == (NUM_CLASSES, NUM_PATCHES * HIDDEN)


def test_another_number_of_patches_is_refused(head):
    with pytest.raises(ValueError, match="features must hold 9 patches, got 4"):
        head(torch.randn(2, 4, NUM_FEATURES))
    with pytest.raises(ValueError, match="orders must hold 9 patches, got 4"):
        head(torch.randn(2, 9, NUM_FEATURES), torch.zeros(2, 3, 4, dtype=torch.int64))


def test_an_arrangement_may_take_some_of_the_patches():
    torch.manual_seed(0)
    head = JointHead(NUM_FEATURES, 2, HIDDEN, NUM_CLASSES, 16).eval()
    features = torch.randn(4, NUM_PATCHES, NUM_FEATURES)
    orders = torch.tensor([[0, 4], [8, 4], [4, 4]]).expand(4, -1, -1)
    logits = head(features, orders)
    assert logits.shape == (4, 3, NUM_CLASSES)
    torch.testing.assert_close(logits[:, 1], head(features[:, [8, 4]]), rtol=1e-5, atol=1e-5)


def test_fully_connected_head_is_that_of_noroozi():
    head = FullyConnectedHead(1024, 9, 1024, 100)
    shapes = [tuple(p.shape) for p in head.parameters()]
    assert shapes == [(1024, 1024), (1024,), (4096, 9216), (4096,), (100, 4096), (100,)]
    assert [part.p for part in head.modules() if isinstance(part, torch.nn.Dropout)] == [0.5, 0.5]
    assert head.classify[0].weight.std().item() == pytest.approx(0.005, rel=0.05)


def test_joint_head_is_that_of_kolesnikov():
    head = JointHead(2048, 9, 1000, 100)
    shapes = [tuple(p.shape) for p in head.parameters()]
    norm = [(4096,), (4096,)]
    linear = [(1000, 2048), (1000,), (4096, 9000), (4096,)]
    assert shapes == [*linear, *norm, (100, 4096), (100,)]
    assert head.classify[0].bias.unique().tolist() == pytest.approx([0.1])
    assert head.classify[0].weight.std().item() == pytest.approx(0.88 * 0.005, rel=0.02)


@pytest.mark.parametrize("kind", [FullyConnectedHead, JointHead])
def test_deep_heads_see_the_order(kind):
    torch.manual_seed(0)
    head = kind(NUM_FEATURES, NUM_PATCHES, HIDDEN, NUM_CLASSES, joint=32).eval()
    features = torch.randn(4, NUM_PATCHES, NUM_FEATURES)
    orders = torch.rand(4, 3, NUM_PATCHES).argsort(-1)
    logits = head(features, orders)
    assert logits.shape == (4, 3, NUM_CLASSES)
    for k in range(3):
        arranged = torch.stack([features[b][orders[b, k]] for b in range(4)])
        torch.testing.assert_close(logits[:, k], head(arranged))
    assert not torch.allclose(logits[:, 0], logits[:, 1])


def test_dropout_comes_from_the_global_generator():
    head = FullyConnectedHead(NUM_FEATURES, NUM_PATCHES, HIDDEN, NUM_CLASSES, joint=32)
    features = torch.randn(4, NUM_PATCHES, NUM_FEATURES)
    results = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        results.append(head(features))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[0], results[2])
