"""Requests to a store of S3's kind that may be hostile: bounded in bytes and in time.

s3fs and botocore read what comes, to its end: objects, and what a store says of an error. Here an
object is read as far as was asked for, an error as far as one may go, and nothing is listed.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from .store import FileState, StoreError
from .web import read_body

MAX_ERROR_BYTES = 1 << 20
"""Of what is no object; S3's own errors have some hundred."""


def bounded_session() -> type:
    """Return the class of botocore's sessions whose answers, but for objects, have an end."""
    from aiobotocore.httpsession import AIOHTTPSession

    class BoundedSession(AIOHTTPSession):
        """Reads no answer further than an error may go."""

        async def send(self, request: Any) -> Any:
            # It would be read to its end at once else.
            is_object, request.stream_output = request.stream_output, True
            answer = await super().send(request)
            answer.raw.read = partial(read_body, answer.raw, MAX_ERROR_BYTES)
            if not is_object:
                await answer.content
            return answer

    return BoundedSession


async def fetch(
    filesystem: Any, path: str, part: tuple[int, int] | None, most: int, limit_s: float
) -> bytes:
    """Read a file of S3, or bytes of it; ``web.fetch`` says what of it."""
    bucket, key, _ = filesystem.split_path(path)
    options = {} if part is None else {"Range": f"bytes={part[0]}-{part[1] - 1}"}
    async with asyncio.timeout(limit_s):
        answer = await filesystem._call_s3("get_object", Bucket=bucket, Key=key, **options)
        content = bytearray()
        try:
            while len(content) <= most and (piece := await answer["Body"].read(1 << 16)):
                content += piece
        finally:
            answer["Body"].close()
    if len(content) > most:
        raise StoreError(f"more bytes came than the {most:,} that were asked for", "too-long")
    return bytes(content)


async def find_state(filesystem: Any, path: str, limit_s: float) -> FileState:
    """Return what the store says of a file."""
    bucket, key, _ = filesystem.split_path(path)
    async with asyncio.timeout(limit_s):
        answer = await filesystem._call_s3("head_object", Bucket=bucket, Key=key)
    return FileState(answer.get("ContentLength"), answer.get("ETag"))
