"""Heads that stand on a trunk while it is pretrained.

Shape legend: B images, P patches of each, D features, K orders of each image, E projected features,
Q classes, C channels, h w places of a map.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional

from .layers import init_conv_and_norm

_DROPOUT = 0.5
_FC_GAIN = 0.5


def build_linear_head(num_features: int, num_outputs: int) -> nn.Linear:
    """Build the Linear head of Kolesnikov et al. 2019: weights Glorot-uniform, biases zero.

    Args:
        num_features: D, of the trunk.
        num_outputs: classes, or features of an embedding.
    """
    head = nn.Linear(num_features, num_outputs)
    nn.init.xavier_uniform_(head.weight)
    nn.init.zeros_(head.bias)
    return head


class PatchHead(nn.Module):
    """Classify an arrangement of patches: project each, concatenate, classify."""

    def __init__(self, num_patches: int, project: nn.Module, classify: nn.Module) -> None:
        """Join the parts.

        Args:
            num_patches: P, patches of an arrangement.
            project: maps (rows, D) to (rows, E), a row a patch.
            classify: maps (rows, P * E) to logits (rows, Q), a row an arrangement.
        """
        super().__init__()
        self.num_patches = num_patches
        self.project = project
        self.classify = classify

    def forward(self, features_BPD: Tensor, orders_BKP: Tensor | None = None) -> Tensor:
        """Score the classes of every arrangement.

        Args:
            features_BPD: pre-logits of the patches.
            orders_BKP: int64; slot j of arrangement k holds patch ``orders_BKP[b, k, j]``. The
                patches are projected once, whatever K, and there may be more of them than an
                arrangement has slots. None: the patches stand as they come.

        Returns:
            Logits (B, K, Q), or (B, Q) without orders.
        """
        num_images, num_patches, _ = features_BPD.shape
        slots = num_patches if orders_BKP is None else orders_BKP.shape[2]
        if slots != self.num_patches:
            what = "features" if orders_BKP is None else "orders"
            raise ValueError(f"{what} must hold {self.num_patches} patches, got {slots}")
        projected_BPE = self.project(features_BPD.flatten(0, 1)).unflatten(
            0, (num_images, num_patches)
        )
        if orders_BKP is None:
            return self.classify(projected_BPE.flatten(1))
        num_orders, hidden = orders_BKP.shape[1], projected_BPE.shape[-1]
        index = orders_BKP.flatten(1)[..., None].expand(-1, -1, hidden)
        arranged = projected_BPE.gather(1, index)
        rows = arranged.reshape(num_images * num_orders, slots * hidden)
        return self.classify(rows).unflatten(0, (num_images, num_orders))


class ConcatHead(PatchHead):
    """The jigsaw head of Goyal et al. 2019 in the form of VISSL: one Linear classifies.

    The projection Linear, BN, ReLU is shared by all patches and its statistics are taken over all
    of them.
    """

    def __init__(self, num_features: int, num_patches: int, hidden: int, num_classes: int) -> None:
        """Build the head with fresh weights from torch's global generator.

        Args:
            num_features: D, of the trunk.
            num_patches: P, patches of an image.
            hidden: E, features that a patch is projected to; 1000 in Goyal et al. 2019.
            num_classes: Q, arrangements that are told apart.
        """
        linear = nn.Linear(num_features, hidden)
        project = nn.Sequential(linear, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
        super().__init__(num_patches, project, nn.Linear(num_patches * hidden, num_classes))
        for layer in _linear_layers(self):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)


class FullyConnectedHead(PatchHead):
    """The head of Noroozi and Favaro 2016: AlexNet's own fully connected layers.

    fc6 (ReLU, dropout) on each patch, concatenate, fc7 (ReLU, dropout) and fc8 on the whole; no
    batch norm. Dropout of 0.5 is drawn from torch's global generator, for every arrangement anew
    after the concatenation.
    """

    def __init__(
        self, num_features: int, num_patches: int, hidden: int, num_classes: int, joint: int = 4096
    ) -> None:
        """Build the head with fresh weights from torch's global generator.

        Args:
            num_features: D, of the trunk.
            num_patches: P, patches of an image.
            hidden: E, width of fc6; 1024 in the original.
            num_classes: Q, arrangements that are told apart.
            joint: width of fc7; 4096 in the original.
        """
        fc6 = nn.Linear(num_features, hidden)
        fc7 = nn.Linear(num_patches * hidden, joint)
        fc8 = nn.Linear(joint, num_classes)
        project = nn.Sequential(fc6, nn.ReLU(inplace=True), nn.Dropout(_DROPOUT))
        classify = nn.Sequential(fc7, nn.ReLU(inplace=True), nn.Dropout(_DROPOUT), fc8)
        super().__init__(num_patches, project, classify)
        # The original's 0.005 for fc7 is 0.48 / sqrt(9216): small, and here the same at any width.
        # He-normal, three times that, hands fc8 so long a vector that SGD at the published rate
        # overshoots: in the first 25 steps the loss stands above that of an even guess, and the
        # plateau that follows is longer (docs/tasks.md, How AlexNet begins to learn).
        for layer in (fc6, fc7):
            nn.init.normal_(layer.weight, std=_FC_GAIN * layer.in_features**-0.5)
            nn.init.zeros_(layer.bias)
        nn.init.normal_(fc8.weight, std=0.01)
        nn.init.zeros_(fc8.bias)


class JointHead(PatchHead):
    """The head of Kolesnikov et al. 2019: a linear embedding, concatenate, a hidden layer.

    Linear on each patch; Linear, BN, ReLU, dropout and Linear on the whole. Weights are truncated
    normal of 0.005, the hidden bias is 0.1; the momentum of the batch norm is 0.003.
    """

    def __init__(
        self, num_features: int, num_patches: int, hidden: int, num_classes: int, joint: int = 4096
    ) -> None:
        """Build the head with fresh weights from torch's global generator.

        Args:
            num_features: D, of the trunk.
            num_patches: P, patches of an image.
            hidden: E, embedding of a patch; 1000 in the original.
            num_classes: Q, arrangements that are told apart.
            joint: width of the hidden layer; 4096 in the original.
        """
        embed = build_linear_head(num_features, hidden)
        first, last = nn.Linear(num_patches * hidden, joint), nn.Linear(joint, num_classes)
        for layer, bias in ((first, 0.1), (last, 0.0)):
            nn.init.trunc_normal_(layer.weight, std=0.005, a=-0.01, b=0.01)
            nn.init.constant_(layer.bias, bias)
        norm = nn.BatchNorm1d(joint, eps=1e-5, momentum=0.003)
        classify = nn.Sequential(first, norm, nn.ReLU(inplace=True), nn.Dropout(_DROPOUT), last)
        super().__init__(num_patches, embed, classify)

    @property
    def own_decay(self) -> nn.Module:
        """What has a weight decay of its own: all but the embedding, the network's last layer."""
        return self.classify


class ColorHead(nn.Module):
    """Tell a colour for every few pixels from a trunk's map (in the manner of Zhang et al. 2016).

    A convolution of 3 x 3, transposed ones of 4 x 4 that double the resolution, another of 3 x 3,
    each with BN and ReLU, and one of 1 x 1 to the bins. What head Goyal et al. 2019 had is not
    known; Zhang et al. 2016 have one doubling behind a trunk of stride 8.
    """

    def __init__(
        self, num_channels: int, hidden: int, num_classes: int, num_doublings: int
    ) -> None:
        """Build the head with fresh weights from torch's global generator.

        Args:
            num_channels: C, of the trunk's map.
            hidden: channels between the layers.
            num_classes: Q, bins that are told apart.
            num_doublings: of the map's resolution.
        """
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(num_channels, hidden, 3, padding=1, bias=False)]
        for _ in range(num_doublings):
            double = nn.ConvTranspose2d(hidden, hidden, 4, 2, 1, bias=False)
            layers += [nn.BatchNorm2d(hidden), nn.ReLU(inplace=True), double]
        layers += [nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)]
        layers += [nn.Conv2d(hidden, hidden, 3, padding=1, bias=False)]
        layers += [nn.BatchNorm2d(hidden), nn.ReLU(inplace=True)]
        self.layers = nn.Sequential(*layers)
        self.classify = nn.Conv2d(hidden, num_classes, 1)
        init_conv_and_norm(self, mode="fan_in")
        for layer in self.layers:
            if isinstance(layer, nn.ConvTranspose2d):
                # Of 4 x 4 weights at stride 2, four meet in a place.
                nn.init.normal_(layer.weight, std=(2 / (4 * hidden)) ** 0.5)
        nn.init.normal_(self.classify.weight, std=0.01)

    def forward(self, maps_BChw: Tensor, side: int) -> Tensor:
        """Score the bins of every place.

        Args:
            maps_BChw: of the trunk, square.
            side: places a side that cover the whole image. A map of fewer, of a trunk without
                padding, stands in their middle; around it are zeros.

        Returns:
            Logits (B, Q, side * 2**num_doublings, the same).
        """
        missing = side - maps_BChw.shape[-1]
        first, last = (missing + 1) // 2, missing // 2
        return self.classify(self.layers(functional.pad(maps_BChw, (first, last, first, last))))


def _linear_layers(head: nn.Module) -> list[nn.Linear]:
    return [part for part in head.modules() if isinstance(part, nn.Linear)]
