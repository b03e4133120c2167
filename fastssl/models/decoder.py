"""A decoder from features to small pictures, for trunks that are trained to describe them.

Shape legend: B images, D features, S side of the picture.
"""

from __future__ import annotations

from torch import Tensor, nn

from ..errors import InputError

# Channels behind each transposed convolution of the study's, which makes 64 px; a smaller picture
# takes the last of them, a larger one begins with more of the first.
_CHANNELS = (256, 256, 256, 128, 64)
_FIRST_SIDE = 4
MAX_OUTPUT = 512


def check_output(field: str, side: int) -> None:
    """Refuse a side that transposed convolutions cannot make.

    Args:
        field: of the task's config.
        side: its value in pixels.

    Raises:
        InputError: names the nearest sides that they can.
    """
    sides = [_FIRST_SIDE]
    while sides[-1] < MAX_OUTPUT:
        sides.append(2 * sides[-1])
    if side not in sides:
        near = sorted(sorted(sides, key=lambda known: abs(known - side))[:2])
        raise InputError(
            f"{field} ({side}) must be 4 px doubled a number of times, {sides[0]} .. {sides[-1]}, "
            f"as the decoder's transposed convolutions make it; take {near[0]} or {near[1]}"
        )


class PictureDecoder(nn.Module):
    """Features to a picture as in Newell and Deng 2020: 1 x 1, 4 x 4, then doubled.

    Transposed convolutions of 4 x 4 and stride 2, each with batch norm and ReLU, and a 1 x 1
    convolution to three channels.
    """

    def __init__(self, num_features: int, side: int, width: int = 4) -> None:
        """Build the decoder.

        Args:
            num_features: D.
            side: S, 4 px doubled a number of times.
            width: of the trunk that it belongs to; 4 is the study's channels, others in proportion.
        """
        super().__init__()
        check_output("side", side)
        num_layers = (side // _FIRST_SIDE).bit_length()
        channels = (*_CHANNELS[:1] * max(0, num_layers - len(_CHANNELS)), *_CHANNELS[-num_layers:])
        channels = tuple(count * width // 4 for count in channels)
        layers: list[nn.Module] = []
        before = num_features
        for number, after in enumerate(channels):
            padding = 0 if number == 0 else 1
            layers += [
                nn.ConvTranspose2d(before, after, 4, stride=2, padding=padding, bias=False),
                nn.BatchNorm2d(after),
                nn.ReLU(inplace=True),
            ]
            before = after
        self.layers = nn.Sequential(*layers, nn.Conv2d(before, 3, 1))

    def forward(self, features_BD: Tensor) -> Tensor:
        """Map features to pictures (B, 3, S, S)."""
        return self.layers(features_BD[:, :, None, None])
