"""YFCC-100M: metadata in every form, pictures of a folder and of a real S3 server in trouble."""

from __future__ import annotations

import bz2
import importlib.util
import logging
import sqlite3
import threading

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.shards.making.yfcc import YfccSource, hash_of, name_of
from tests.patience import HANGS_AFTER_S

COLUMNS = (
    "photoid uid unickname datetaken dateuploaded capturedevice title description usertags "
    "machinetags longitude latitude accuracy pageurl downloadurl licensename licenseurl serverid "
    "farmid secret secretoriginal ext marker"
).split()
NUM = 8
COMMON = {"samples_per_shard": 100, "workers": 1, "keep_order": True}


def make_row(number: int, marker: str = "0") -> list[str]:
    row = dict.fromkeys(COLUMNS, "")
    row |= {
        "photoid": str(7000 + number),
        "unickname": "some+one",
        "pageurl": f"http://www.flickr.com/photos/x/{7000 + number}/",
        "downloadurl": f"http://farm1.staticflickr.com/1/{7000 + number}_a.jpg",
        "licenseurl": "http://creativecommons.org/licenses/by/2.0/",
        "marker": marker,
    }
    return [*row.values()]


ROWS = [*map(make_row, range(NUM)), make_row(99, marker="1")]
HASHES = [hash_of(row[COLUMNS.index("downloadurl")]) for row in ROWS]


def write_lines(path, rows):
    path.write_text("".join("\t".join(row) + "\n" for row in rows))
    return path


@pytest.fixture
def database(tmp_path):
    path = tmp_path / "yfcc100m_dataset.sql"
    with sqlite3.connect(path) as connection:
        connection.execute(f"CREATE TABLE yfcc100m_dataset ({', '.join(COLUMNS)})")
        marks = ",".join("?" * len(COLUMNS))
        connection.executemany(f"INSERT INTO yfcc100m_dataset VALUES ({marks})", ROWS)
    connection.close()
    return path


@pytest.fixture
def mirror(tmp_path, draw_photograph, encode):
    """A folder with all pictures but the sixth."""
    for number, name in enumerate(map(name_of, HASHES[:NUM])):
        path = tmp_path / "mirror" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if number != 5:
            path.write_bytes(encode(draw_photograph(number)))
    return tmp_path / "mirror"


def test_a_file_is_named_by_the_bytes_of_an_md5_without_leading_zeros():
    # MD5 d41d8cd98f00b204e9800998ecf8427e, whose bytes 00, 04 and 09 lose a digit each.
    assert hash_of("") == "d41d8cd98f0b24e980998ecf8427e"
    assert name_of("d41d8cd98f0b24e980998ecf8427e") == (
        "data/images/d41/d8c/d41d8cd98f0b24e980998ecf8427e.jpg"
    )


def test_every_form_of_the_metadata_lists_the_same_photographs(database, mirror, tmp_path):
    forms = [database, write_lines(tmp_path / "plain.tsv", ROWS)]
    (tmp_path / "plain.tsv.bz2").write_bytes(bz2.compress(forms[1].read_bytes()))
    forms.append(tmp_path / "plain.tsv.bz2")
    hashed = [[str(n), row[0], HASHES[n], *row[1:]] for n, row in enumerate(ROWS)]
    forms.append(write_lines(tmp_path / "hashed.tsv", hashed))
    listed = [[*YfccSource(form, mirror).entries()] for form in forms]
    assert listed[0] == listed[1] == listed[2] == listed[3]
    assert [entry.name for entry in listed[0]] == [*map(name_of, HASHES[:NUM])]
    assert listed[0][3].columns == {
        "photoid": "7003",
        "unickname": "some+one",
        "pageurl": "http://www.flickr.com/photos/x/7003/",
        "licenseurl": "http://creativecommons.org/licenses/by/2.0/",
    }
    subset = write_lines(tmp_path / "subset.tsv", [row[:3] for row in hashed[:NUM]])
    names = [entry.name for entry in YfccSource(subset, mirror).entries()]
    assert names == [entry.name for entry in listed[0]]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a\tb\n", "line 1 has 2 fields, wanted 23, 25"),
        ("1\t2\t../../etc/passwd\n", r"line 1 has '\.\./\.\./etc/passwd' where the hash stands"),
        ("", "no photographs in it"),
    ],
)
def test_what_are_no_metadata_is_refused(tmp_path, text, said):
    (tmp_path / "odd.tsv").write_text(text)
    with pytest.raises(InputError, match=said):
        YfccSource(tmp_path / "odd.tsv", tmp_path)


@pytest.mark.parametrize(("size", "said"), [(4096, "malformed"), (-9, "it is cut off")])
def test_a_damaged_database_is_one_line_that_says_to_fetch_it_again(database, mirror, size, said):
    database.write_bytes(database.read_bytes()[:size])
    with pytest.raises(InputError, match=rf"SQLite file \(.*{said}.*\); fetch it again"):
        YfccSource(database, mirror)


class TroubledApp:
    """A WSGI application whose answers, for some paths, come late or not at first."""

    def __init__(self, app) -> None:
        self._app = app
        self._lock = threading.Lock()
        self.slow_downs: dict[str, int] = {}
        self.last = ""
        self.asked: list[str] = []
        self._others = threading.Event()

    def __call__(self, environ, start_response):
        path = environ["PATH_INFO"]
        with self._lock:
            is_down = environ["REQUEST_METHOD"] == "GET" and self.slow_downs.get(path, 0) > 0
            if is_down:
                self.slow_downs[path] -= 1
            if environ["REQUEST_METHOD"] == "GET" and path.endswith(".jpg"):
                self.asked.append(path)
                if len({*self.asked}) == NUM:
                    self._others.set()
        if is_down:
            start_response("503 Slow Down", [("Content-Type", "application/xml")])
            return [b"<Error><Code>SlowDown</Code><Message>Reduce your rate</Message></Error>"]
        if (
            environ["REQUEST_METHOD"] == "GET" and path == self.last
        ):  # answered when all others have been asked for
            self._others.wait(HANGS_AFTER_S)
        return self._app(environ, start_response)


@pytest.fixture
def troubled(monkeypatch):
    for package in ("s3fs", "moto", "flask"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"needs {package}")
    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = TroubledApp(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    for name, value in {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
        "AWS_ACCESS_KEY_ID": "user",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_SHARED_CREDENTIALS_FILE": "/nowhere",
        "AWS_CONFIG_FILE": "/nowhere",
        "AWS_EC2_METADATA_DISABLED": "true",
        "NO_PROXY": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    yield app
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_bucket_with_missing_slow_and_throttled_objects_is_the_folder_to_the_byte(
    database, mirror, troubled, tmp_path, read_tree
):
    import s3fs

    filesystem = s3fs.S3FileSystem(skip_instance_cache=True)
    filesystem.mkdir("yfcc")
    filesystem.put(str(mirror / "data"), "yfcc/data", recursive=True)
    told = convert(ConvertConfig(database, tmp_path / "a", yfcc_images=str(mirror), **COMMON))
    assert (told.read, told.written, told.skipped) == (NUM, NUM - 1, {"missing": 1})
    throttled, slow = f"/yfcc/{name_of(HASHES[1])}", f"/yfcc/{name_of(HASHES[0])}"
    troubled.slow_downs = {throttled: 2}
    troubled.last = slow
    report = convert(ConvertConfig(database, tmp_path / "b", yfcc_images="s3://yfcc", **COMMON))
    assert report.skipped == {"missing": 1}
    assert troubled.slow_downs == {throttled: 0}
    alone, other = read_tree(tmp_path / "a"), read_tree(tmp_path / "b")
    alone.pop("skipped.jsonl"), other.pop("skipped.jsonl")  # each says in its words what is missing
    assert alone == other
    dataset = open_dataset(tmp_path / "b")
    assert dataset.read_metadata(2)["licenseurl"].startswith("http://creativecommons.org/")


def test_a_place_without_rights_is_one_line_before_anything_is_made(
    database, tmp_path, monkeypatch
):
    pytest.importorskip("s3fs", reason='needs pip install "fastssl[scale]"')
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_SHARED_CREDENTIALS_FILE", "AWS_CONFIG_FILE"):
        monkeypatch.setenv(name, "/nowhere")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    said = r"--yfcc-images s3://yfcc/data/images/.*: access denied .*; give rights to read it"
    with pytest.raises(InputError, match=said):
        convert(ConvertConfig(database, tmp_path / "o", yfcc_images="s3://yfcc"))
    assert not (tmp_path / "o").exists()


@pytest.mark.usefixtures("troubled")
def test_a_place_without_any_of_the_first_photographs_is_refused_before_anything_is_made(
    database, tmp_path
):
    import s3fs

    s3fs.S3FileSystem(skip_instance_cache=True).mkdir("other")
    for place in (str(tmp_path), "s3://other", "s3://nowhere"):
        with pytest.raises(InputError, match=rf"{place}.*: none of the first 8 photographs is th"):
            convert(ConvertConfig(database, tmp_path / "o", yfcc_images=place))
    assert not (tmp_path / "o").exists()
