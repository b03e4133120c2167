"""Bytes of samples that lie in no file of this machine, in memory that is read as one.

The extension's threads read files. What a cache has no room for, or had wrong, is read by Python
and handed to them here.
"""

from __future__ import annotations

import os

from ..system.files import free_part

_BLOCK = 4096


class Spill:
    """A file without a name, in memory. One thread writes, any may read."""

    def __init__(self) -> None:
        """Make it; it takes no room yet."""
        self._descriptor = os.memfd_create("fastssl-spill", os.MFD_CLOEXEC)
        self._end = 0

    @property
    def path(self) -> str:
        """What opens it, in this process."""
        return f"/proc/self/fd/{self._descriptor}"

    def hold(self, content: bytes) -> int:
        """Write bytes behind all others; return their offset."""
        offset = self._end
        view = memoryview(content)
        while view:
            count = os.pwrite(self._descriptor, view, self._end)
            view, self._end = view[count:], self._end + count
        self._end = -(-self._end // _BLOCK) * _BLOCK
        return offset

    def let_go(self, offset: int, length: int) -> None:
        """Give the room of bytes back."""
        free_part(self._descriptor, offset, -(-length // _BLOCK) * _BLOCK)

    def close(self) -> None:
        """Give all of it back; may be called twice."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor = -1
