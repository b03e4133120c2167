"""A dataset in an object store: range requests through fsspec, several at once.

Filesystems of fsspec and the thread of their event loop do not survive a fork, and loader workers
are forked. So each process makes its own when it first reads. What a child inherits is kept and
never touched: to close it there takes the parent's sockets out of the epoll set that both processes
share, and the parent waits for an answer until its time limit (31 s, measured).
"""

from __future__ import annotations

import contextlib
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from ..errors import InputError, nearest
from .store import Result, Store

NUM_REQUESTS = 16
"""Requests that one process has under way."""

CONNECT_TIMEOUT_S = 10.0
"""Longest wait for a connection."""

READ_TIMEOUT_S = 30.0
"""Longest silence in the middle of an answer."""

REQUEST_TIMEOUT_S = 60.0
"""Longest time for a whole request, with what the protocol's own package repeats of it."""

INSTALL_LINE = 'pip install "fastssl[scale]"'

# What brings a protocol's package; of others fsspec tells itself.
_INSTALL_LINES = {
    **dict.fromkeys(("http", "https", "s3", "s3a"), INSTALL_LINE),
    **dict.fromkeys(("gs", "gcs"), "pip install gcsfs"),
    **dict.fromkeys(("az", "abfs"), "pip install adlfs"),
}

# Mistakes in a program, never the answer of a store: they keep their traceback.
_MISTAKES = (TypeError, AttributeError, NameError, AssertionError, MemoryError)

_inherited: list[Any] = []
_stores: weakref.WeakSet[RemoteStore] = weakref.WeakSet()


class StoreError(OSError):
    """A store did not give what it was asked for."""

    def __init__(self, reason: str, kind: str = "failed") -> None:
        """Keep the reason.

        Args:
            reason: one line.
            kind: ``missing``, ``denied``, ``no-ranges`` or ``failed``; only the last may pass.
        """
        super().__init__(reason)
        self.kind = kind


class _Connection(NamedTuple):
    filesystem: Any
    root: str
    """The dataset's folder in it."""
    limits: dict[str, Any]
    """Keywords of every request."""


class RemoteStore(Store):
    """The files below an address, such as ``s3://bucket/prefix`` or ``https://host/folder``."""

    is_remote = True
    patience = 20

    def __init__(self, address: str) -> None:
        """Prepare to read; nothing is requested yet.

        Args:
            address: of the dataset, without a slash at its end.

        Raises:
            InputError: if the protocol is not known, or its package is absent.
        """
        self.place: str = address
        self._is_closed = False
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._connection: _Connection | None = None
        self._connect()
        _stores.add(self)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a file by one request."""
        filesystem, root, limits = self._connect()
        # By keyword: the second parameter of s3fs is a version.
        part = {"start": offset, "end": offset + length}
        with _as_store_error():
            content = filesystem.cat_file(f"{root}/{name}", **part, **limits)
        if len(content) > length:
            raise StoreError(f"{len(content)} bytes came, {length} were asked for", "no-ranges")
        return content

    def read_file(self, name: str) -> bytes:
        """Read a whole file; otherwise as ``read_range``."""
        filesystem, root, limits = self._connect()
        with _as_store_error():
            return filesystem.cat_file(f"{root}/{name}", **limits)

    def size(self, name: str) -> int:
        """Return the size of a file in bytes."""
        filesystem, root, limits = self._connect()
        with _as_store_error():
            size = filesystem.info(f"{root}/{name}", **limits)["size"]
        if size is None:
            raise StoreError("the store does not tell its size")
        return size

    def forget(self, name: str) -> None:
        """Hold nothing of a file."""

    def run_ahead(self, jobs: Iterable[Callable[[], Result]]) -> list[Future[Result]]:
        """Run reads in up to ``NUM_REQUESTS`` threads."""
        with self._lock:
            if self._is_closed:
                return []
            if self._pool is None:
                self._pool = ThreadPoolExecutor(NUM_REQUESTS, "fastssl-store")
            return [self._pool.submit(job) for job in jobs]

    def close(self) -> None:
        """Close the connections for good, and give up what was asked for ahead."""
        with self._lock:
            self._is_closed = True
            pool, self._pool = self._pool, None
            self._connection = None
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)

    def _connect(self) -> _Connection:
        with self._lock:
            if self._is_closed:
                raise StoreError("closed")
            if self._connection is None:
                self._connection = _open_filesystem(self.place)
            return self._connection

    def _leave_to_parent(self) -> None:
        """Begin anew in a child: without a connection, with a lock that nobody holds."""
        _inherited.append((self._connection, self._pool))
        self._lock = threading.Lock()
        self._pool = None
        self._connection = None


def _after_fork() -> None:
    for store in list(_stores):
        store._leave_to_parent()


os.register_at_fork(after_in_child=_after_fork)


@contextlib.contextmanager
def _as_store_error() -> Iterator[None]:
    """Turn what a protocol's package raises into one kind of error.

    Each package has exceptions of its own, and not all of them are OSErrors.
    """
    try:
        yield
    except (StoreError, *_MISTAKES):
        raise
    except Exception as error:
        raise StoreError(*_describe(error)) from error


def _describe(error: Exception) -> tuple[str, str]:
    """Return the reason, in one line, and the kind."""
    status = getattr(error, "status", None)  # aiohttp's
    text = " ".join(str(error).split())
    if isinstance(error, FileNotFoundError):
        return f"not found ({text})", "missing"
    if (
        isinstance(error, PermissionError)
        or status in (401, 403)
        or "Credentials" in type(error).__name__
    ):
        return f"access denied ({text})", "denied"
    if isinstance(error, TimeoutError):
        return f"no answer in time ({text or f'{REQUEST_TIMEOUT_S:g} s'})", "failed"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__, "failed"


def _open_filesystem(address: str) -> _Connection:
    """Make a filesystem of this process."""
    protocol = address.partition(":")[0]
    try:
        import fsspec
        from fsspec.asyn import AsyncFileSystem
    except ImportError:
        raise InputError(f"{address}: reading it needs fsspec; {INSTALL_LINE}") from None
    known = fsspec.available_protocols()
    if protocol not in known:
        raise InputError(f"{address}: protocol '{protocol}' is not known{nearest(protocol, known)}")
    if protocol in ("http", "https") and ("?" in address or "#" in address):
        raise InputError(
            f"{address}: the address of a dataset ends with its folder, file names follow; leave "
            "out what begins at '?' or '#'"
        )
    try:
        # Not one that another part of the program may have made, with other limits.
        options = {} if "::" in address else _limit(protocol)
        filesystem, root = fsspec.url_to_fs(address, skip_instance_cache=True, **options)
    except ImportError as error:
        line = _INSTALL_LINES.get(protocol, "install it")
        raise InputError(
            f"{address}: reading it needs a package that is absent ({error}); {line}"
        ) from None
    limits = {"timeout": REQUEST_TIMEOUT_S} if isinstance(filesystem, AsyncFileSystem) else {}
    return _Connection(filesystem, root.rstrip("/"), limits)


def _limit(protocol: str) -> dict[str, Any]:
    """Return the options that set time limits; the user's own fsspec configuration goes first."""
    import fsspec

    if protocol in ("http", "https"):
        import aiohttp

        name = "client_kwargs"
        ours: dict[str, Any] = {
            "timeout": aiohttp.ClientTimeout(
                total=None, sock_connect=CONNECT_TIMEOUT_S, sock_read=READ_TIMEOUT_S
            ),
            "headers": {"Accept-Encoding": "identity"},  # a range of compressed bytes is no range
            "raise_for_status": _check_range,
            "trust_env": True,  # proxies, as every other program finds them
        }
    elif protocol in ("s3", "s3a"):
        name = "config_kwargs"
        ours = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "max_pool_connections": NUM_REQUESTS,
        }
    else:
        return {}
    return {name: {**ours, **fsspec.config.conf.get(protocol, {}).get(name, {})}}


async def _check_range(response: Any) -> None:
    """Refuse a whole file where a part was asked for, before its gigabytes come."""
    wanted = response.request_info.headers.get("Range")
    if wanted is not None and response.status == 200:
        size = response.content_length
        raise StoreError(
            "the server ignores Range and sends the whole file"
            + (f", {size:,} bytes" if size is not None else ""),
            "no-ranges",
        )
