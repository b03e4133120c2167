"""ConcatHead: arrangements of patches."""

from __future__ import annotations

import pytest
import torch

from fastssl.models import ConcatHead

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
