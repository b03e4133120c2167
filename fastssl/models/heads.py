"""Heads that stand on a trunk while it is pretrained.

Shape legend: B images, P patches of each, D features, K orders of each image, E projected features,
Q classes.
"""

from __future__ import annotations

from torch import Tensor, nn


class ConcatHead(nn.Module):
    """Classify an arrangement of patches: project each, concatenate, classify.

    The projection Linear, BN, ReLU is shared by all patches and its statistics are taken over all
    of them; one Linear classifies (the jigsaw head of Goyal et al. 2019 in the form of VISSL).
    """

    def __init__(self, num_features: int, num_patches: int, hidden: int, num_classes: int) -> None:
        """Build the head with fresh weights from torch's global generator.

        Args:
            num_features: D, of the trunk.
            num_patches: P, patches of an image.
            hidden: E, features that a patch is projected to; 1000 in Goyal et al. 2019.
            num_classes: Q, arrangements that are told apart.
        """
        super().__init__()
        self.num_patches = num_patches
        linear = nn.Linear(num_features, hidden)
        self.project = nn.Sequential(linear, nn.BatchNorm1d(hidden), nn.ReLU(inplace=True))
        self.classify = nn.Linear(num_patches * hidden, num_classes)
        for layer in (linear, self.classify):
            nn.init.normal_(layer.weight, std=0.01)
            nn.init.zeros_(layer.bias)

    def forward(self, features_BPD: Tensor, orders_BKP: Tensor | None = None) -> Tensor:
        """Score the classes of every arrangement.

        Args:
            features_BPD: pre-logits of the patches.
            orders_BKP: int64; slot j of arrangement k holds patch ``orders_BKP[b, k, j]``. The
                patches are projected once, whatever K. None: the patches stand as they come.

        Returns:
            Logits (B, K, Q), or (B, Q) without orders.
        """
        num_images, num_patches, _ = features_BPD.shape
        if num_patches != self.num_patches:
            raise ValueError(f"features must hold {self.num_patches} patches, got {num_patches}")
        projected_BPE = self.project(features_BPD.flatten(0, 1)).unflatten(
            0, (num_images, num_patches)
        )
        if orders_BKP is None:
            return self.classify(projected_BPE.flatten(1))
        num_orders, hidden = orders_BKP.shape[1], projected_BPE.shape[-1]
        index = orders_BKP.flatten(1)[..., None].expand(-1, -1, hidden)
        arranged = projected_BPE.gather(1, index)
        return self.classify(arranged.reshape(num_images, num_orders, num_patches * hidden))
