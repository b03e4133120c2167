"""A web server that knows Range requests, and the trouble that such servers make."""

from __future__ import annotations

import base64
import contextlib
import gzip
import http.server
import os
import re
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

BOMB = gzip.compress(bytes(1 << 22), 9)
"""Four kilobytes that are four megabytes."""


class RangeServer(http.server.ThreadingHTTPServer):
    """Serves a folder on this machine until ``stop``."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.address = f"http://127.0.0.1:{self.server_port}"
        self.delay_s = 0.0
        self.trouble: Callable[[str], str | None] = lambda _name: None
        """What goes wrong for a file: 503, reset, hang, cut, short, shifted (another range than was
        asked for), wrong (other bytes), ignore, endless (and without a length, in chunks, or in
        answer to a range), gzip, trickle, headers, or the address that it redirects to; None is
        nothing."""
        self.password: tuple[str, str] | None = None
        """User and password that are asked for."""
        self.etag: str | None = None
        """What it calls the version of its files."""
        self.asked: list[tuple[str, str | None]] = []
        """Files and ranges, in the order of the requests."""
        self.num_together = 0
        """So many must be under way before one is answered; after 20 s it is all the same."""
        self.num_sent = 0
        """Bytes of endless files."""
        self.most_at_once = 0
        self._num_at_once = 0
        self._lock = threading.Condition()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.02})
        self._thread.start()

    def troubled(self, name: str, kind: str, times: int = 1_000_000) -> None:
        """Let requests for a file go wrong that many times."""
        left = [times]

        def choose(asked: str) -> str | None:
            with self._lock:
                if asked != name or not left[0]:
                    return None
                left[0] -= 1
                return kind

        self.trouble = choose

    def stop(self) -> None:
        self._stopping.set()
        self.shutdown()
        self.server_close()
        self._thread.join()

    def handle_error(self, request, client_address) -> None:
        """Say nothing: clients go away in the middle, that is what is tested."""

    @contextlib.contextmanager
    def counted(self, name: str, part: str | None):
        with self._lock:
            self.asked.append((name, part))
            self._num_at_once += 1
            self.most_at_once = max(self.most_at_once, self._num_at_once)
            self._lock.notify_all()
            self._lock.wait_for(lambda: self.most_at_once >= self.num_together, timeout=20)
        try:
            time.sleep(self.delay_s)
            yield
        finally:
            with self._lock:
                self._num_at_once -= 1


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: RangeServer

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def do_HEAD(self) -> None:
        path = self.server.folder / self.path.lstrip("/")
        self._answer(200 if path.is_file() else 404, path.stat().st_size if path.is_file() else 0)

    def do_GET(self) -> None:
        name, part = self.path.lstrip("/"), self.headers.get("Range")
        with self.server.counted(name, part):
            if self.server.password is not None and not self._is_allowed():
                self._answer(401, 0)
                return
            trouble = self.server.trouble(name)
            if trouble == "503":
                self._answer(503, 0)
            elif trouble == "reset":
                self.connection.setsockopt(
                    socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                )
                self.connection.close()
                self.close_connection = True
            elif trouble == "hang":
                self.server._stopping.wait()
                self.close_connection = True
            elif trouble is not None and trouble.startswith("endless"):
                self._send_endlessly(trouble)
            elif trouble == "gzip":
                self._answer(200, len(BOMB), {"Content-Encoding": "gzip"})
                self.wfile.write(BOMB)
            elif trouble in ("trickle", "headers"):
                self._trickle(trouble, part)
            elif trouble is not None and (trouble.startswith("/") or "://" in trouble):
                self._answer(302, 0, {"Location": trouble})
            else:
                self._send_file(name, None if trouble == "ignore" else part, trouble)

    def _send_file(self, name: str, part: str | None, trouble: str | None) -> None:
        try:
            with open(self.server.folder / name, "rb") as file:
                size = os.fstat(file.fileno()).st_size
                first, last, status, headers = 0, size - 1, 200, {}
                if part is not None:
                    first, last = map(int, re.fullmatch(r"bytes=(\d+)-(\d+)", part).groups())
                    status, headers = 206, {"Content-Range": f"bytes {first}-{last}/{size}"}
                file.seek(first)
                content = file.read(last + 1 - first)
        except OSError:
            self._answer(404, 0)
            return
        if part is not None and first >= size:
            self._answer(416, 0)
            return
        if trouble == "short":
            content = content[: len(content) // 2]
        elif trouble == "wrong":
            content = bytes(byte ^ 0x55 for byte in content)
        elif trouble == "shifted":
            content = content[1:] + b"?"
            headers["Content-Range"] = f"bytes {first + 1}-{last + 1}/{size}"
        self._answer(status, len(content), headers)
        self.wfile.write(content[: len(content) // 2] if trouble == "cut" else content)
        self.close_connection = trouble == "cut"

    def _is_allowed(self) -> bool:
        given = ":".join(self.server.password or ()).encode()
        return self.headers.get("Authorization") == f"Basic {base64.b64encode(given).decode()}"

    def _send_endlessly(self, trouble: str) -> None:
        block = os.urandom(1 << 16)
        if trouble == "endless":
            self._answer(200, 1 << 40)
        elif trouble == "endless range":
            self._answer(206, 1 << 40, {"Content-Range": f"bytes 0-{(1 << 40) - 1}/{1 << 40}"})
        else:
            is_part = self.headers.get("Range") is not None
            self.send_response(206 if is_part else 200)
            if trouble == "endless chunks":
                self.send_header("Transfer-Encoding", "chunked")
                block = b"10000\r\n" + block + b"\r\n"
            self.end_headers()
        self.close_connection = True
        while not self.server._stopping.is_set():
            self.wfile.write(block)
            self.server.num_sent += len(block)

    def _trickle(self, trouble: str, part: str | None) -> None:
        """Send a byte, or a header, at a time."""
        self.send_response(200 if part is None else 206)
        if trouble == "trickle":
            self.send_header("Content-Length", "64")
            self.end_headers()
        else:
            self.flush_headers()
        self.close_connection = True
        while not self.server._stopping.wait(0.01):
            self.wfile.write(b"x" if trouble == "trickle" else b"X-More: 1\r\n")

    def _answer(self, status: int, length: int, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        if self.server.etag is not None:
            self.send_header("ETag", self.server.etag)
        for name, value in {**(headers or {}), "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
