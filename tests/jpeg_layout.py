"""What the extension's parser reads out of a JPEG, for tests of what tiles look like."""

from __future__ import annotations

import importlib.util
from types import SimpleNamespace

import pytest

from fastssl.jpeg_extension import STATUSES

HAS_TRANSCODER = importlib.util.find_spec("fastssl._C_jpeg") is not None
needs_transcoder = pytest.mark.skipif(
    not HAS_TRANSCODER, reason="needs the extension with libjpeg-turbo (libjpeg-dev)"
)

# Of csrc/jpeg/parse.h, in the operator's order.
_NUMBERS = (
    *("width", "height", "num_components", "mcu_width", "mcu_height", "mcus_per_row", "mcu_rows"),
    *("blocks_per_mcu", "precision", "restart_interval", "orientation", "frame", "num_scans"),
    *("entropy_begin", "entropy_end"),
)


def parse_layout(payload: bytes) -> SimpleNamespace:
    """Return the numbers of a JPEG's layout by their names."""
    from fastssl import _C_jpeg

    status, fields, _, _ = _C_jpeg.parse(payload)
    assert STATUSES[status] == "ok"
    return SimpleNamespace(**dict(zip(_NUMBERS, fields, strict=True)))
