"""Requests to a web server that may be hostile: bounded in bytes, in time and in where they lead.

An answer is read as far as was asked for and no further, never decompressed, and given up when it
trickles. A redirect is followed to the server that was asked, and to others where the user allows
it, never to a link-local address: clouds answer there with a machine's credentials. Nor are such
addresses connected to where a name was not the user's own, whatever it resolves to.
"""

from __future__ import annotations

import asyncio
import base64
import ipaddress
import os
import socket
from typing import Any
from urllib.parse import urlsplit

from .store import FileState, StoreError

MIN_BYTES_PER_S = 1024
"""An answer that comes more slowly is given up, once it has had ``TRICKLE_S``."""
TRICKLE_S = 4.0
"""Seconds after which the rate of an answer counts."""
HEADERS_S = 5.0
"""Seconds that a server has for its headers."""
UNTOLD_S = 5.0
"""Seconds that an answer may take that does not tell its length; servers of files do."""
MAX_REDIRECTS = 5
"""Redirects in a row that are followed."""
REDIRECT_VARIABLE = "FASTSSL_REDIRECT_HOSTS"
"""Environment variable: other hosts that a server may redirect to, with commas between; ``*`` is
any."""

_REDIRECTS = (301, 302, 303, 307, 308)
_SECRETS = ("auth", "cookies")


async def fetch(
    filesystem: Any, address: str, part: tuple[int, int] | None, most: int, limit_s: float
) -> bytes:
    """Read a file, or a part of it.

    Args:
        filesystem: fsspec's for http.
        address: of the file.
        part: first byte and the one behind the last; None is the whole file.
        most: bytes that may come.
        limit_s: seconds that the whole answer may take.

    Raises:
        StoreError: if something else comes than was asked for.
        TimeoutError: if it takes too long.
    """
    headers = {} if part is None else {"Range": f"bytes={part[0]}-{part[1] - 1}"}
    async with asyncio.timeout(limit_s):
        response = await _ask(filesystem, "GET", address, headers)
        async with response:
            _check_answer(response, part, most)
            return await read_body(response, most)


async def find_state(filesystem: Any, address: str, limit_s: float) -> FileState:
    """Return what a server says of a file; otherwise as ``fetch``."""
    async with asyncio.timeout(limit_s):
        response = await _ask(filesystem, "HEAD", address, {})
        async with response:
            _check_answer(response, None, None)
            return FileState(response.content_length, response.headers.get("ETag"))


async def open_guarded(**options: Any) -> Any:
    """Open a session, as fsspec has its client made, that connects to no link-local address.

    A name is looked at when it has been resolved, and what was looked at is connected to. A number
    is not resolved: ``names_link_local`` tells. A proxy resolves names itself.

    Args:
        options: of aiohttp's ClientSession.
    """
    import aiohttp

    class Guarded(aiohttp.ThreadedResolver):
        async def resolve(self, host: str, port: int = 0, family: Any = socket.AF_INET) -> Any:
            found = await super().resolve(host, port, family)
            if any(_is_link_local(one["host"]) for one in found):
                raise StoreError(f"{host} is at a link-local address", "denied")
            return found

    connector = aiohttp.TCPConnector(resolver=Guarded())
    return aiohttp.ClientSession(**{"connector": connector, **options})


async def _ask(filesystem: Any, method: str, address: str, headers: dict[str, str]) -> Any:
    """Return the answer, not yet read, of the server that has the file."""
    session = await filesystem.set_session()
    place = filesystem.encode_url(address)
    secret = _authorization(place)
    place = place.with_user(None)
    options = {**filesystem.kwargs, "allow_redirects": False}
    given = options.pop("headers", {})
    for _ in range(MAX_REDIRECTS + 1):
        sent = {**given, **headers, **secret}
        try:
            async with asyncio.timeout(HEADERS_S):
                response = await session.request(method, place, headers=sent, **options)
        except TimeoutError:
            raise StoreError(f"no answer in time ({HEADERS_S:g} s)", "slow") from None
        if response.status not in _REDIRECTS:
            return response
        response.close()
        target = _find_target(place, response)
        if target.origin() != place.origin():
            await _check_target(place, target)
            # What was given for one server, a token perhaps, is not for another.
            secret, given = {}, {}
            options = {name: v for name, v in options.items() if name not in _SECRETS}
        place = target
    raise StoreError(f"more than {MAX_REDIRECTS} redirects", "redirect")


def _authorization(place: Any) -> dict[str, str]:
    """Return the header that a user and a password in an address stand for."""
    if place.user is None:
        return {}
    given = f"{place.user}:{place.password or ''}".encode()
    return {"Authorization": f"Basic {base64.b64encode(given).decode()}"}


def _find_target(place: Any, response: Any) -> Any:
    """Return where a redirect leads."""
    from yarl import URL

    try:
        target = place.join(URL(response.headers["Location"]))
        target.origin()  # a web address has one
    except (KeyError, ValueError):
        raise StoreError(f"status {response.status} that leads nowhere", "redirect") from None
    return target.with_user(None)


async def _check_target(place: Any, target: Any) -> None:
    """Refuse a redirect to another server, unless the user allows it."""
    led = f"redirected to another server, {target.origin()}"
    allowed = [host.strip() for host in os.environ.get(REDIRECT_VARIABLE, "").split(",")]
    if target.scheme not in ("http", "https") or (place.scheme, target.scheme) == ("https", "http"):
        raise StoreError(f"{led}, whose answers are not protected", "redirect")
    if target.host not in allowed and "*" not in allowed:
        raise StoreError(led, "redirect")
    found = await asyncio.get_running_loop().getaddrinfo(target.host, target.port)
    if any(_is_link_local(str(entry[4][0])) for entry in found):
        raise StoreError(f"{led}, a link-local address", "redirect")


def names_link_local(address: str) -> bool:
    """Return whether the host of a web address is a number that is link-local, however written.

    Args:
        address: ``http://...`` or ``https://...``; of other protocols the answer is no.
    """
    parts = urlsplit(address)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        return False
    try:  # asks no name server; takes 0xA9FEA9FE and 2852039166 as well
        found = socket.getaddrinfo(parts.hostname, None, flags=socket.AI_NUMERICHOST)
    except (OSError, UnicodeError):
        return False
    return any(_is_link_local(str(entry[4][0])) for entry in found)


def _is_link_local(number: str) -> bool:
    address = ipaddress.ip_address(number.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_link_local


def _check_answer(response: Any, part: tuple[int, int] | None, most: int | None) -> None:
    """Refuse what is not the answer to a request, before its bytes come."""
    size, status, is_part = response.content_length, response.status, part is not None
    if status == 404:
        raise StoreError(f"not found ({response.url})", "missing")
    if status in (401, 403):
        raise StoreError(f"access denied ({status} {response.reason})", "denied")
    if is_part and status == 200:
        told = f", {size:,} bytes" if size is not None else ""
        raise StoreError(f"the server ignores Range and sends the whole file{told}", "no-ranges")
    if status != (206 if is_part else 200):
        raise StoreError(f"status {status} {response.reason}")
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise StoreError(f"it is sent compressed ({encoding[:40]})", "encoded")
    if most is not None and size is not None and size > most:
        raise _TooMuch(size, most)
    told = response.headers.get("Content-Range", "")
    if part is not None and told and not told.startswith(f"bytes {part[0]}-"):
        wanted = f"bytes {part[0]}-{part[1] - 1}"
        raise StoreError(f"another range came ({told[:60]!r}) than was asked for ({wanted})")


class _TooMuch(StoreError):
    """More bytes than were asked for."""

    def __init__(self, size: int, most: int) -> None:
        super().__init__(f"{size:,} bytes came, at most {most:,} were asked for", "too-long")


async def read_body(response: Any, most: int) -> bytes:
    """Read the body of an answer, as far as it may go.

    Args:
        response: aiohttp's.
        most: bytes that may come.

    Raises:
        StoreError: if more come, or they come too slowly.
    """
    clock = asyncio.get_running_loop().time
    began, content = clock(), bytearray()
    try:
        async with asyncio.timeout(UNTOLD_S if response.content_length is None else None):
            async for piece in response.content.iter_any():
                content += piece
                if len(content) > most:
                    raise _TooMuch(len(content), most)
                elapsed = clock() - began
                if elapsed > TRICKLE_S and len(content) < MIN_BYTES_PER_S * elapsed:
                    raise TimeoutError
    except TimeoutError:
        told = f"{len(content):,} bytes in {clock() - began:.0f} s"
        raise StoreError(f"no answer in time ({told})", "slow") from None
    return bytes(content)
