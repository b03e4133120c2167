"""What the extension's JPEG code (csrc/jpeg) says to both of its callers, and how to get it.

Knows nothing of torch, whose import every process of a conversion would pay for.
"""

from __future__ import annotations

STATUSES = ("ok", "truncated", "corrupt", "unsupported", "too_large", "no_memory")
"""How an operation on the bytes of a JPEG ends: ``fastssl::jpeg::Status``, by its numbers."""

BUILD_JPEG = (
    "install libjpeg-turbo with its headers (Debian: apt-get install libjpeg-dev) and build the "
    "extension again: pip install --no-build-isolation -e ."
)
"""How to get an extension with the JPEG code."""
