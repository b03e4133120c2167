"""Hostile web servers for ``train --data.path http://...``: a real one on this machine."""

from __future__ import annotations

import functools
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from fastssl.shards.index import HEADER_BYTES, IndexHeader

from .case import Case
from .runs import RECIPE, Words, make_master

OK = b"HTTP/1.1 200 OK\r\n"
PART = b"HTTP/1.1 206 Partial Content\r\n"
BLOCK = bytes(1 << 16)

Answer = Callable[[str, bool], Iterator[bytes]]
"""From the file that is asked for, and whether a part of it is, to the bytes to send."""


class RawServer:
    """Answers every request with whatever bytes it is told to; closes the connection then."""

    def __init__(self, answer: Answer) -> None:
        """Listen, in a thread that ends with the process."""
        self._answer = answer
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._handle, args=(connection,), daemon=True).start()

    def _handle(self, connection: socket.socket) -> None:
        with connection:
            try:
                asked = b""
                while b"\r\n\r\n" not in asked:
                    asked += connection.recv(1 << 16) or b"\r\n\r\n"
                name = asked.split(b" ", 2)[1].decode().rpartition("/")[2]
                for piece in self._answer(name, b"range:" in asked.lower()):
                    connection.sendall(piece)
            except (OSError, IndexError):
                return  # it has left


def _whole(content: bytes, is_part: bool) -> Iterator[bytes]:
    yield (PART if is_part else OK) + f"Content-Length: {len(content)}\r\n\r\n".encode() + content


def troubled(name: str, trouble: Callable[[bool], Iterator[bytes]]) -> Answer:
    """Return answers that are good but for those to one file's requests.

    Ranges are not looked at: files are small, and what is too long is trouble too.
    """

    def answer(asked: str, is_part: bool) -> Iterator[bytes]:
        if asked == name:
            return trouble(is_part)
        path = make_master() / "data" / asked
        if not path.is_file():
            return iter([b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"])
        content = path.read_bytes()
        if asked == "index.bin":
            content = content[:HEADER_BYTES]
        return _whole(content, is_part)

    return answer


def endless(headers: bytes, block: bytes = BLOCK) -> Callable[[bool], Iterator[bytes]]:
    """Return a body without end."""

    def send(is_part: bool) -> Iterator[bytes]:
        yield (PART if is_part else OK) + headers + b"\r\n"
        while True:
            yield block

    return send


def raw(*pieces: bytes, goes_on: bytes = b"") -> Callable[[bool], Iterator[bytes]]:
    """Return these bytes, and others behind them without end."""

    def send(_: bool) -> Iterator[bytes]:
        yield from pieces
        while goes_on:
            yield goes_on

    return send


def trickle(pieces: bytes) -> Callable[[bool], Iterator[bytes]]:
    """Return an answer that comes a byte at a time."""

    def send(is_part: bool) -> Iterator[bytes]:
        yield (PART if is_part else OK) + b"Content-Length: 64\r\n\r\n"
        while True:
            threading.Event().wait(0.2)
            yield pieces

    return send


def _lie_about(**fields: object) -> bytes:
    manifest = json.loads((make_master() / "data" / "manifest.json").read_bytes())
    return json.dumps({**manifest, **fields}).encode()


def _claim_many() -> bytes:
    digest = json.loads((make_master() / "data" / "manifest.json").read_bytes())["digest"]
    return IndexHeader(1 << 62, digest).pack()


def list_troubles() -> dict[str, Callable[[bool], Iterator[bytes]]]:
    """List what a server may do with a request."""
    lone = b"1\r\nx\r\n" * 1000
    return {
        "a body without end": endless(b""),
        "a terabyte": endless(b"Content-Length: 1099511627776\r\n"),
        "chunks without end": endless(
            b"Transfer-Encoding: chunked\r\n", b"10000\r\n" + BLOCK + b"\r\n"
        ),
        "small chunks without end": endless(b"Transfer-Encoding: chunked\r\n", lone),
        "a chunk's size without end": endless(b"Transfer-Encoding: chunked\r\n", b"0" * 65536),
        "gzip without end": endless(b"Content-Encoding: gzip\r\n"),
        "brotli": endless(b"Content-Encoding: br\r\nContent-Length: 9\r\n", b"x"),
        "headers without end": raw(OK, goes_on=b"X-More: 1\r\n" * 1000),
        "a header without end": raw(OK + b"X-More: ", goes_on=BLOCK),
        "a status line without end": raw(b"HTTP/1.1 200 ", goes_on=b"O" * 65536),
        "informational answers without end": raw(goes_on=b"HTTP/1.1 100 Continue\r\n\r\n" * 100),
        "no HTTP": raw(b"220 mail.example ESMTP\r\n"),
        "nothing": raw(b""),
        "two lengths": raw(OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxxx"),
        "a negative length": raw(OK + b"Content-Length: -1\r\n\r\n"),
        "a trickle": trickle(b"x"),
        "a redirect to itself": raw(b"HTTP/1.1 302 F\r\nLocation: manifest.json\r\n\r\n"),
        "a redirect elsewhere": raw(b"HTTP/1.1 302 F\r\nLocation: http://127.0.0.2:1/\r\n\r\n"),
        "a redirect to a cloud's address": raw(
            b"HTTP/1.1 302 F\r\nLocation: http://169.254.169.254/latest\r\n\r\n"
        ),
        "a redirect nowhere": raw(b"HTTP/1.1 302 F\r\nLocation: http://[::bad\r\n\r\n"),
        "a redirect to a file": raw(b"HTTP/1.1 302 F\r\nLocation: file:///etc/passwd\r\n\r\n"),
    }


def train_from(make_answer: Callable[[], Answer]) -> Callable[[Path], Words]:
    """Return what starts a server and a run that reads from it."""

    def prepare(folder: Path) -> Words:
        make_master()  # here: a run notes signals, which no thread may
        # The command inherits them.
        os.environ.update(FASTSSL_CACHE=str(folder / "cache"), NO_PROXY="127.0.0.1")
        address = RawServer(make_answer()).address
        quick = ("--data.global-batch-size", "4", "--max-steps", "1", "--task.size", "16")
        return ("train", RECIPE, "--data.path", address, "--output-dir", folder / "run", *quick)

    return prepare


def list_cases() -> list[Case]:
    """List all of them."""
    troubles = list_troubles()
    cases = [
        Case(f"{kind} for {name}", train_from(functools.partial(troubled, name, trouble)), 2)
        for name in ("manifest.json", "index.bin")
        for kind, trouble in troubles.items()
    ]
    manifests = {
        "a nest": lambda: b"[" * 100_000,
        "a digest that is a place": lambda: _lie_about(digest="../../elsewhere"),
        "samples without number": lambda: _lie_about(num_samples=1 << 70),
    }
    cases += [
        Case(
            f"a manifest with {kind}",
            train_from(
                lambda make=make: troubled("manifest.json", lambda part: _whole(make(), part))
            ),
            2,
        )
        for kind, make in manifests.items()
    ]
    cases.append(
        Case(
            "an index of 2**62 samples",
            train_from(lambda: troubled("index.bin", lambda part: _whole(_claim_many(), part))),
            2,
        )
    )
    return cases
