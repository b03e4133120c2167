"""Hostile sources for ``make-shards``: what lies in folders, lists, tables and tars."""

from __future__ import annotations

import io
import os
import random
import socket
import struct
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image

from .case import Case

Words = Sequence[str | Path]


def encode(image: Image.Image, kind: str = "JPEG", **options: object) -> bytes:
    """Return the file that an image makes."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def make_photograph(seed: int = 0, side: int = 64) -> bytes:
    """Return a harmless JPEG."""
    coarse = Image.frombytes("RGB", (4, 4), random.Random(seed).randbytes(48))
    return encode(coarse.resize((side, side), Image.Resampling.BICUBIC))


# --- Pictures -------------------------------------------------------------------------------------


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """Return a chunk of a PNG."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def make_png(width: int, height: int, color: int, rows: bytes, *more: bytes) -> bytes:
    """Return a PNG by hand; ``rows`` are compressed already."""
    header = struct.pack(">IIBBBBB", width, height, 8, color, 0, 0, 0)
    chunks = (png_chunk(b"IHDR", header), *more, png_chunk(b"IDAT", rows), png_chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def make_pixel_bomb(side: int = 20_000) -> bytes:
    """Return a PNG of 1.5 MB that is 1.6 GB of RGBA."""
    packer = zlib.compressobj(9)
    row = bytes(1 + 4 * side)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    return make_png(side, side, 6, rows)


def make_scan_bomb(side: int = 4000, num_scans: int = 4000) -> bytes:
    """Return a small progressive JPEG whose scans go over all of its pixels again and again."""
    payload = encode(Image.new("RGB", (side, side), (9, 99, 199)), progressive=True, quality=10)
    start = payload.rindex(b"\xff\xda")
    return payload[:-2] + payload[start:-2] * num_scans + payload[-2:]


def list_pictures() -> dict[str, Callable[[], bytes]]:
    """Return hostile picture files by name; making some of them takes a second."""
    tiny = Image.new("RGB", (8, 8))
    return {
        "scan-bomb.jpg": make_scan_bomb,
        "pixel-bomb.png": make_pixel_bomb,
        "lying.png": lambda: make_png(65_535, 65_535, 6, zlib.compress(b"\0")),
        "text-bomb.png": lambda: make_png(
            *(8, 8, 2, zlib.compress(bytes(8 * 25))),
            png_chunk(b"zTXt", b"x\0\0" + zlib.compress(bytes(1 << 28), 9)),
        ),
        "profile-bomb.png": lambda: make_png(
            *(8, 8, 2, zlib.compress(bytes(8 * 25))),
            png_chunk(b"iCCP", b"x\0\0" + zlib.compress(bytes(1 << 28), 9)),
        ),
        "empty.jpg": lambda: b"",
        "zeros.jpg": lambda: bytes(1 << 20),
        "markers.jpg": lambda: b"\xff\xd8" + b"\xff" * (1 << 20),
        "lying.jpg": lambda: make_photograph().replace(
            struct.pack(">HH", 64, 64), struct.pack(">HH", 65_535, 65_535), 1
        ),
        "many-frames.gif": lambda: (
            encode(tiny, "GIF")[:-1] + encode(tiny, "GIF")[-40:-1] * 20_000 + b";"
        ),
        "looping.tif": lambda: struct.pack("<2sHIHI", b"II", 42, 8, 0, 8),
        "huge-strip.tif": lambda: encode(tiny, "TIFF").replace(b"\x08\0\0\0", b"\xff\xff\xff\x7f"),
        "wide.bmp": lambda: encode(tiny, "BMP").replace(
            struct.pack("<II", 8, 8), struct.pack("<II", 60_000, 60_000), 1
        ),
        "wide.ppm": lambda: b"P6 100000 100000 255\n" + bytes(99),
        "lying.npy": lambda: (
            b"\x93NUMPY\1\0v\0"
            + b"{'descr': '|u1', 'fortran_order': False, 'shape': (60000, 60000, 3), }".ljust(117)
            + b"\n"
        ),
        "deep.npy": lambda: b"\x93NUMPY\1\0\xf8\xff" + b"(" * 65_528,
    }


# --- Folders --------------------------------------------------------------------------------------


def fill_folder(source: Path) -> None:
    """Write a folder with a photograph in two classes and all that is hostile in one folder."""
    for name in ("cat", "dog"):
        (source / name).mkdir(parents=True)
        (source / name / "good.jpg").write_bytes(make_photograph(len(name)))
    place = source / "cat"
    os.mkfifo(place / "fifo.jpg")
    here = os.getcwd()
    os.chdir(place)  # a socket's address is short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("socket.jpg")
    os.chdir(here)
    for name, target in {
        "self.jpg": "self.jpg",
        "nowhere.jpg": "nothing",
        "device.jpg": "/dev/zero",
        "terminal.jpg": "/dev/tty",
        "log.jpg": "/proc/kmsg",
        "memory.jpg": "/proc/self/mem",
        "pages.jpg": "/proc/self/pagemap",
        "core.jpg": "/proc/kcore",
        "output.jpg": "/dev/stdout",
        "loop": ".",
        "above": "..",
        "root": "/",
        "descriptors": "/proc/self/fdinfo",
    }.items():
        (place / name).symlink_to(target)
    with (place / "sparse.jpg").open("wb") as file:
        file.truncate(1 << 40)
    (place / "folder.jpg").mkdir()


def write_pictures(source: Path, names: Sequence[str] = ()) -> None:
    """Write a photograph and the hostile pictures of these names, or all."""
    source.mkdir()
    (source / "good.jpg").write_bytes(make_photograph())
    for name, make in list_pictures().items():
        if not names or name in names:
            (source / name).write_bytes(make())


def nest_folders(source: Path, depth: int) -> None:
    """Write a photograph at the top and one below so many folders, too deep for one path."""
    source.mkdir()
    (source / "good.jpg").write_bytes(make_photograph())
    here = os.open(".", os.O_RDONLY)
    try:
        os.chdir(source)
        for _ in range(depth):
            os.mkdir("d")
            os.chdir("d")
        Path("deep.jpg").write_bytes(make_photograph(1))
    finally:
        os.fchdir(here)
        os.close(here)


def unnest_folders(source: Path) -> None:
    """Remove what ``nest_folders`` made: more than pytest could."""
    subprocess.run(["rm", "-rf", source], check=True)


# --- Tars -----------------------------------------------------------------------------------------


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    """Write a plain tar."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))


def set_size(path: Path, field: bytes) -> None:
    """Give the first member of a tar another size, with a checksum that fits."""
    content = bytearray(path.read_bytes())
    content[124:136] = field.ljust(12, b"\0")
    content[148:156] = b" " * 8
    content[148:156] = b"%06o\0 " % sum(content[:512])
    path.write_bytes(content)


def list_jsons() -> dict[str, bytes]:
    """Return hostile ``.json`` members by name."""
    return {
        "nested": b"[" * 100_000,
        "nested-object": b'{"a":' * 100_000,
        "nested-closed": b'{"a":' + b"[" * 90_000 + b"]" * 90_000 + b"}",
        "digits": b'{"a": ' + b"9" * 100_000 + b"}",
        "nan": b'{"a": NaN, "b": 1e999}',
        "surrogate": rb'{"\ud800": "\udfff"}',
        "bytes": b'{"a": "\xff\xfe"}',
        "list": b"[1, 2]",
        "own-names": b'{"source": ["a"], "orientation": "x"}',
    }


def _tar_case(name: str, members: dict[str, bytes], size: bytes | None = None) -> Case:
    def prepare(folder: Path) -> Words:
        write_tar(folder / "a.tar", members)
        if size is not None:
            set_size(folder / "a.tar", size)
        return make_shards(folder / "a.tar", folder)

    return Case(f"tar: {name}", prepare)


# --- Cases ----------------------------------------------------------------------------------------


def make_shards(source: Path, folder: Path, *more: str) -> Words:
    """Return the command line."""
    return ("make-shards", source, folder / "out", "--workers", "1", *more)


def _picture_case(name: str, encoding: str) -> Case:
    def prepare(folder: Path) -> Words:
        write_pictures(folder / "source", [name])
        return make_shards(folder / "source", folder, "--encode", encoding)

    return Case(f"picture: {name}, {encoding}", prepare)


def _folder(folder: Path) -> Words:
    fill_folder(folder / "source")
    return make_shards(folder / "source", folder)


def _text_case(name: str, file_name: str, content: Callable[[], bytes]) -> Case:
    def prepare(folder: Path) -> Words:
        (folder / "good.jpg").write_bytes(make_photograph())
        (folder / file_name).write_bytes(content())
        return make_shards(folder / file_name, folder)

    return Case(name, prepare)


def list_cases() -> list[Case]:
    """Return every case."""

    def nest(depth: int) -> Case:
        def prepare(folder: Path) -> Words:
            nest_folders(folder / "source", depth)
            return make_shards(folder / "source", folder)

        return Case(f"folder: {depth:,} nested", prepare, code=0)

    def place(name: str, source: str, out: str) -> Case:
        def prepare(folder: Path) -> Words:
            (folder / "a").mkdir()
            (folder / "a/good.jpg").write_bytes(make_photograph())
            return ("make-shards", source.format(folder), out.format(folder), "--workers", "1")

        return Case(f"place: {name}", prepare)

    good = make_photograph()
    names = list_pictures()
    columns = ["path", *(f"c{i}" for i in range(100_000))]
    return [
        Case("folder: fifo, socket, devices, loops", _folder, code=0, says="2 samples"),
        nest(1500),
        nest(5000),
        *(_picture_case(name, "keep") for name in names),
        *(_picture_case(name, "resized") for name in names if "bomb" in name),
        *(_picture_case(name, "tiled") for name in names if name.endswith("jpg")),
        *(
            _tar_case(f"json {name}", {"1.jpg": good, "1.json": content})
            for name, content in list_jsons().items()
        ),
        _tar_case("negative size", {"1.jpg": good}, b"-0000001000"),
        _tar_case("negative size in base 256", {"1.jpg": good}, b"\xff" * 12),
        _tar_case("endless size", {"1.jpg": good}, b"77777777777"),
        _tar_case("size in base 256", {"1.jpg": good}, b"\x80" + b"\xff" * 11),
        _tar_case("names", {"../../etc/1.jpg": good, "/2.jpg": good, "a//3.jpg": good}),
        _tar_case("doubled names", {"1.jpg": good, "1.JPG": good}),
        _tar_case("label of digits", {"1.jpg": good, "1.cls": b"9" * 100_000}),
        _text_case("list: long lines", "list.txt", lambda: b"x" * (64 << 20)),
        _text_case("list: devices", "list.txt", lambda: b"/dev/zero\n/proc/kmsg\ngood.jpg\n"),
        _text_case("list: climbing", "list.txt", lambda: b"../" * 3000 + b"\ngood.jpg\n"),
        _text_case(
            "table: 100,000 columns",
            "table.csv",
            lambda: "\n".join([",".join(columns), ",".join(["good.jpg"] * len(columns))]).encode(),
        ),
        _text_case("table: open quote", "table.csv", lambda: b'path\n"' + b"x\n" * (1 << 20)),
        _text_case("table: zeros", "table.csv", lambda: b"path\n" + bytes(1 << 20)),
        _text_case("table: no Parquet", "table.parquet", lambda: b"PAR1" + b"\xff" * 4096),
        place("out in /proc", "{}/a", "/proc/x"),
        place("out on a device", "{}/a", "/dev/null"),
        place("out below a file", "{}/a", "{}/a/good.jpg/x"),
        place("source in /proc", "/proc/kmsg", "{}/out"),
        place("source is a device", "/dev/zero", "{}/out"),
        place("source is standard input", "/dev/stdin", "{}/out"),
        place("a name with a zero-width end", "{}/a" + "x" * 300, "{}/out"),
    ]
