"""A dataset in an object store: range requests through fsspec, several at once.

Filesystems of fsspec and the thread of their event loop do not survive a fork, and loader workers
are forked. So each process makes its own when it first reads. What a child inherits is kept and
never touched: to close it there takes the parent's sockets out of the epoll set that both processes
share, and the parent waits for an answer until its time limit (31 s, measured). That goes for what
the parent has left to the garbage collector too, a filesystem for each dataset that it has had: a
child would wait a second for each, for a loop that does not run there.
"""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import weakref
from collections.abc import Callable, Coroutine, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from ..address import hide_credentials
from ..errors import InputError, nearest
from . import s3, web
from .store import FileState, Result, Store, StoreError

NUM_REQUESTS = 16
"""Requests that one process has under way."""

CONNECT_TIMEOUT_S = 5.0
"""Longest wait for a connection."""

READ_TIMEOUT_S = 5.0
"""Longest silence before an answer and in the middle of one."""

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


class _Connection(NamedTuple):
    filesystem: Any
    root: str
    """The dataset's folder in it."""
    is_async: bool
    """Whether its requests run in fsspec's event loop, and so have time limits."""

    def read(self, name: str, part: tuple[int, int] | None, most: int) -> bytes:
        """Read a file, or bytes of it; as much as may come and no more, whatever is sent."""
        path = f"{self.root}/{name}"
        if self._is_of("https"):
            return self._run(web.fetch, path, part, most)
        if self._is_of("s3"):
            return self._run(s3.fetch, path, part, most)
        if part is None:
            size = self.state(name).size
            if size is None:
                raise StoreError("the store does not tell its size")
            if size > most:
                raise StoreError(f"{size:,} bytes, at most {most:,} were asked for", "too-long")
            part = (0, size)
        # By keyword: the second parameter of some is a version.
        limits = {"timeout": REQUEST_TIMEOUT_S} if self.is_async else {}
        return self.filesystem.cat_file(path, start=part[0], end=part[1], **limits)

    def state(self, name: str) -> FileState:
        """Return what the store says of a file."""
        path = f"{self.root}/{name}"
        if self._is_of("https"):
            return self._run(web.find_state, path)
        if self._is_of("s3"):
            return self._run(s3.find_state, path)
        limits = {"timeout": REQUEST_TIMEOUT_S} if self.is_async else {}
        told = self.filesystem.info(path, **limits)
        return FileState(told["size"], told.get("ETag"))

    def _is_of(self, protocol: str) -> bool:
        known = self.filesystem.protocol
        return protocol in ((known,) if isinstance(known, str) else known)

    def _run(self, request: Callable[..., Coroutine[Any, Any, Any]], *arguments: Any) -> Any:
        from fsspec.asyn import sync

        # The request ends itself by then, and frees what it holds.
        wait_s = REQUEST_TIMEOUT_S + CONNECT_TIMEOUT_S
        arguments = (self.filesystem, *arguments, REQUEST_TIMEOUT_S)
        return sync(self.filesystem.loop, request, *arguments, timeout=wait_s)


class RemoteStore(Store):
    """The files below an address, such as ``s3://bucket/prefix`` or ``https://host/folder``."""

    is_remote = True
    patience = 20

    def __init__(self, address: str, is_guarded: bool = False) -> None:
        """Prepare to read; nothing is requested yet.

        Args:
            address: of the dataset, without a slash at its end.
            is_guarded: connect to no link-local address; for addresses that no user gave.

        Raises:
            InputError: if the protocol is not known, or its package is absent.
        """
        self.address: str = address
        self.place: str = hide_credentials(address)
        self._is_guarded = is_guarded
        self._is_closed = False
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._connection: _Connection | None = None
        self._connect()
        _stores.add(self)

    def read_range(self, name: str, offset: int, length: int) -> bytes:
        """Read a part of a file by one request."""
        connection = self._connect()
        with _as_store_error():
            content = connection.read(name, (offset, offset + length), length)
        if len(content) > length:
            raise StoreError(f"{len(content)} bytes came, {length} were asked for", "no-ranges")
        return content

    def read_file(self, name: str, most: int) -> bytes:
        """Read a whole file of that many bytes at most; otherwise as ``read_range``."""
        connection = self._connect()
        with _as_store_error():
            return connection.read(name, None, most)

    def state(self, name: str) -> FileState:
        """Return what the store says of a file."""
        connection = self._connect()
        with _as_store_error():
            return connection.state(name)

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
                self._connection = _open_filesystem(self.address, self._is_guarded)
            return self._connection

    def _leave_to_parent(self) -> None:
        """Begin anew in a child: without a connection, with a lock that nobody holds."""
        _inherited.append((self._connection, self._pool))
        self._lock = threading.Lock()
        self._pool = None
        self._connection = None


def _after_fork() -> None:
    gc.freeze()
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
        if isinstance(error.__cause__, StoreError):
            raise error.__cause__ from None  # ours, which a package has wrapped
        raise StoreError(*_describe(error)) from None  # theirs names the address, password and all


def _describe(error: Exception) -> tuple[str, str]:
    """Return the reason, in one line, and the kind."""
    status = getattr(error, "status", None)  # aiohttp's
    text = hide_credentials(" ".join(str(error).split()))
    if isinstance(error, FileNotFoundError):
        return f"not found ({text})", "missing"
    if (
        isinstance(error, PermissionError)
        or status in (401, 403)
        or "Credentials" in type(error).__name__
    ):
        return f"access denied ({text})", "denied"
    if isinstance(error, TimeoutError):
        return f"no answer in time ({text or f'{REQUEST_TIMEOUT_S:g} s'})", "slow"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__, "failed"


def _open_filesystem(address: str, is_guarded: bool) -> _Connection:
    """Make a filesystem of this process."""
    protocol, shown = address.partition(":")[0], hide_credentials(address)
    try:
        import fsspec
        from fsspec.asyn import AsyncFileSystem
    except ImportError:
        raise InputError(f"{shown}: reading it needs fsspec; {INSTALL_LINE}") from None
    known = fsspec.available_protocols()
    if protocol not in known:
        raise InputError(f"{shown}: protocol '{protocol}' is not known{nearest(protocol, known)}")
    if protocol in ("http", "https") and ("?" in address or "#" in address):
        raise InputError(
            f"{shown}: the address of a dataset ends with its folder, file names follow; leave "
            "out what begins at '?' or '#'"
        )
    if is_guarded and "::" in address:
        raise InputError(f"{shown}: a chain of protocols, wanted one; index the tars elsewhere")
    try:
        # Not one that another part of the program may have made, with other limits.
        options = {} if "::" in address else _limit(protocol)
        if is_guarded and protocol in ("http", "https"):
            options["get_client"] = web.open_guarded
        filesystem, root = fsspec.url_to_fs(address, skip_instance_cache=True, **options)
    except ImportError as error:
        line = _INSTALL_LINES.get(protocol, "install it")
        raise InputError(
            f"{shown}: reading it needs a package that is absent ({error}); {line}"
        ) from None
    return _Connection(filesystem, root.rstrip("/"), isinstance(filesystem, AsyncFileSystem))


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
            "auto_decompress": False,
            "trust_env": True,  # proxies, as every other program finds them
        }
    elif protocol in ("s3", "s3a"):
        name = "config_kwargs"
        ours = {
            "connect_timeout": CONNECT_TIMEOUT_S,
            "read_timeout": READ_TIMEOUT_S,
            "max_pool_connections": NUM_REQUESTS,
            "http_session_cls": s3.bounded_session(),
        }
    else:
        return {}
    return {name: {**ours, **fsspec.config.conf.get(protocol, {}).get(name, {})}}
