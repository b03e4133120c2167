from __future__ import annotations

import datetime
import decimal
import json
import subprocess
import sys
from pathlib import Path

import pytest

from fastssl.errors import InputError
from fastssl.shards import open_dataset
from fastssl.shards.making.sources import open_source
from fastssl.shards.making.tables import TableColumns, to_plain

ROOT = Path(__file__).parents[2]


def write_csv(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    return path


@pytest.fixture
def write_parquet(tmp_path):
    pyarrow = pytest.importorskip("pyarrow", reason="pip install fastssl[tables]")
    parquet = pytest.importorskip("pyarrow.parquet")

    def write(columns, name="table.parquet", **types):
        arrays = [pyarrow.array(v, types.get(n)) for n, v in columns.items()]
        parquet.write_table(pyarrow.Table.from_arrays(arrays, list(columns)), tmp_path / name)
        return tmp_path / name

    return write


def labelled(path, columns=None):
    source = open_source(path, columns)
    entries = list(source.entries())
    return [(e.name, source.class_names[e.label] if e.label >= 0 else None) for e in entries]


def entries_of(path):
    return list(open_source(path).entries())


ROWS = [("cat/image0.jpg", "cat", 3.5), ("dog/image1.jpg", "dog", 1.0), ("cat/image2.jpg", "", 2.0)]


@pytest.fixture(params=["csv", "tsv", "parquet"])
def table(request, photographs):
    """The same table of three photographs, one of them without a label, in every format."""
    path = photographs / f"table.{request.param}"
    if request.param == "parquet":
        pyarrow = pytest.importorskip("pyarrow", reason="pip install fastssl[tables]")
        parquet = pytest.importorskip("pyarrow.parquet")
        names = ("path", "label", "score")
        columns = {name: [row[i] or None for row in ROWS] for i, name in enumerate(names)}
        parquet.write_table(pyarrow.table(columns), path)
        return path
    delimiter = {"csv": ",", "tsv": "\t"}[request.param]
    lines = [("path", "label", "score"), *ROWS]
    return write_csv(path, "".join(delimiter.join(map(str, line)) + "\n" for line in lines))


def test_a_table_becomes_a_dataset(table, make_dataset):
    dataset = open_dataset(make_dataset(table, keep_order=True)[0])
    assert dataset.class_names == ("cat", "dog")
    assert dataset.index["label"].tolist() == [0, 1, -1]
    for i, (name, _, score) in enumerate(ROWS):
        kept = score if table.suffix == ".parquet" else str(score)
        assert dataset.read_metadata(i) == {"source": name, "score": kept, "orientation": 1}
        assert dataset.read_payload(i) == (table.parent / name).read_bytes()


def test_a_table_is_resumed_like_any_source(table, make_dataset):
    make_dataset(table)
    assert make_dataset(table, resume=True)[1].was_finished


def test_columns_are_chosen_by_name(tmp_path):
    path = write_csv(tmp_path / "t.csv", "score,file,kind\n1,a.jpg,dog\n2,b.jpg,cat\n")
    columns = TableColumns("file", "kind")
    assert labelled(path, columns) == [("a.jpg", "dog"), ("b.jpg", "cat")]
    assert [e.columns for e in open_source(path, columns).entries()] == [
        {"score": "1"},
        {"score": "2"},
    ]


def test_the_command_takes_column_names(photographs, tmp_path, run_tool):
    path = write_csv(photographs / "t.csv", "file,kind\ncat/image0.jpg,x\ncat/image2.jpg,y\n")
    out = tmp_path / "out"
    options = ("--path-column", "file", "--label-column", "kind", "--workers", 1)
    done = run_tool("make_shards.py", path, out, *options)
    assert done.returncode == 0, done.stderr
    assert open_dataset(out).class_names == ("x", "y")


def test_a_table_without_labels_has_none(tmp_path):
    path = write_csv(tmp_path / "t.csv", "path\na.jpg\nb.jpg\n")
    assert labelled(path) == [("a.jpg", None), ("b.jpg", None)]


def test_a_column_that_was_meant_for_labels_is_named(tmp_path):
    path = write_csv(tmp_path / "t.csv", "path,labels\na.jpg,cat\n")
    with pytest.warns(UserWarning, match="did you mean 'labels'"):
        assert labelled(path) == [("a.jpg", None)]


@pytest.mark.parametrize(
    ("labels", "wanted", "names"),
    [
        (["2", "0", "-1", ""], [2, 0, -1, -1], []),
        (["2", "x", "", "2"], [0, 1, -1, 0], ["2", "x"]),
        (["007", "7", "7", "7"], [0, 1, 1, 1], ["007", "7"]),  # 007 is a name
        (["", "", "", ""], [-1, -1, -1, -1], []),
    ],
)
def test_csv_labels_are_integers_if_all_are(tmp_path, labels, wanted, names):
    rows = "".join(f"{i}.jpg,{label}\n" for i, label in enumerate(labels))
    source = open_source(write_csv(tmp_path / "t.csv", "path,label\n" + rows))
    assert [entry.label for entry in source.entries()] == wanted
    assert source.class_names == names


@pytest.mark.parametrize("kind", ["int8", "uint64", "dictionary"])
def test_parquet_labels_of_every_kind(write_parquet, kind):
    import pyarrow

    if kind == "dictionary":
        labels, given = pyarrow.dictionary(pyarrow.int32(), pyarrow.string()), ["b", "a", None]
    else:
        labels, given = getattr(pyarrow, kind)(), [5, 0, None]
    path = write_parquet({"path": ["1", "2", "3"], "label": given}, label=labels)
    wanted = [1, 0, -1] if kind == "dictionary" else [5, 0, -1]
    assert [entry.label for entry in entries_of(path)] == wanted


def test_integer_labels_are_named_by_their_numbers(photographs, write_parquet, make_dataset):
    paths = [str(photographs / f"cat/image{i}.jpg") for i in (0, 2, 4)]
    path = write_parquet({"path": paths, "label": [2, 0, None]})
    dataset = open_dataset(make_dataset(path, keep_order=True)[0])
    assert dataset.class_names == ("0", "1", "2")
    assert dataset.index["label"].tolist() == [2, 0, -1]


def test_further_columns_of_parquet_are_kept_as_json(write_parquet):
    columns = {
        "path": ["1.jpg"],
        "when": [datetime.datetime(2024, 5, 6, 7, 8, 9)],
        "price": [decimal.Decimal("1.50")],
        "tags": [["a", "b"]],
        "box": [{"x": 1, "y": [0.5, float("nan")]}],
        "nothing": [None],
        "is_good": [True],
    }
    (entry,) = entries_of(write_parquet(columns))
    assert json.loads(json.dumps(entry.columns, allow_nan=False)) == {
        "when": "2024-05-06T07:08:09",
        "price": "1.50",
        "tags": ["a", "b"],
        "box": {"x": 1, "y": [0.5, None]},
        "nothing": None,
        "is_good": True,
    }


def test_infinite_numbers_become_text():
    assert to_plain([float("inf"), -float("inf"), 1.0]) == ["inf", "-inf", 1.0]


def test_quoted_fields_bom_and_line_ends_are_read(tmp_path):
    text = '\ufeffpath,label,note\r\n"a,b.jpg","the ""cat""","two\nlines"\r\n\r\nc.jpg,dog,\r\n'
    path = write_csv(tmp_path / "t.csv", text)
    assert labelled(path) == [("a,b.jpg", 'the "cat"'), ("c.jpg", "dog")]
    assert [e.columns for e in entries_of(path)] == [{"note": "two\nlines"}, {"note": None}]


def test_a_path_that_is_no_utf8_keeps_its_bytes(tmp_path, draw_photograph, encode, make_dataset):
    with open(bytes(tmp_path) + b"/\xff.jpg", "wb") as file:
        file.write(encode(draw_photograph(0)))
    path = write_csv(tmp_path / "t.csv", "path\n\udcff.jpg\n")
    dataset = open_dataset(make_dataset(path)[0])
    assert dataset.read_metadata(0)["source"] == "\udcff.jpg"


def test_parquet_is_known_by_its_first_bytes(write_parquet):
    path = write_parquet({"path": ["1.jpg"]}, name="table")
    assert [entry.name for entry in entries_of(path)] == ["1.jpg"]


# --- Bad input ------------------------------------------------------------------------------------


def test_rows_whose_file_is_missing_are_left_out(photographs, make_dataset):
    rows = "cat/image0.jpg,cat\nnowhere.jpg,cat\n,dog\ncat,dog\n"
    path = write_csv(photographs / "t.csv", "path,label\n" + rows)
    out, report = make_dataset(path)
    assert (report.read, report.written) == (4, 1)
    assert report.skipped == {"missing": 2, "not-a-file": 1}
    lines = [json.loads(line) for line in (out / "skipped.jsonl").read_text().splitlines()]
    found = {(line["source"], line["reason"]) for line in lines}
    assert found == {("nowhere.jpg", "missing"), ("t.csv:4", "missing"), ("cat", "not-a-file")}


def test_a_table_of_which_every_file_is_missing_is_refused(tmp_path, make_dataset):
    path = write_csv(tmp_path / "t.csv", "path\n1.jpg\n2.jpg\n")
    with pytest.raises(
        InputError, match=r"no readable image in its 2 files.*missing 2; the first: [12]\.jpg"
    ):
        make_dataset(path)
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty; wanted a table"),
        ("path,label\n", "no files in it.*a table with rows"),
        ("file,label\na.jpg,cat\n", "no column 'path'.*--path-column"),
        ("paht,label\na.jpg,cat\n", "did you mean 'paht'"),
        ("path;label\na.jpg;cat\n", "separated by ';', wanted ','.*write it anew"),
        ("path\tlabel\na.jpg\tcat\n", r"separated by '\\t', wanted ','.*name it \.tsv"),
        ("b.jpg,ant\nc.jpg,bee\n", r"columns \(its first line names them\): b\.jpg, ant;"),
        ("path,label,label\na.jpg,cat,dog\n", "'label'.*more than once|more than once.*'label'"),
        ("path,label\na.jpg,cat\nb.jpg\n", "line 3 has 1 field, its header has 2"),
        ("path,label\na,b.jpg,cat\n", "line 2 has 3 fields"),
        ('path\n"a.jpg\n', "line 2 is no CSV"),
        ("path,source\na.jpg,flickr\n", "column 'source' would hide"),
        ("path,label\na.jpg,-2\n", "row 2 has the label -2"),
        ("path,label\na.jpg,2147483648\n", "row 2 has the label 2147483648"),
    ],
)
def test_bad_tables_are_refused_and_leave_nothing(tmp_path, make_dataset, text, message):
    path = write_csv(tmp_path / "t.csv", text)
    with pytest.raises(InputError, match=message):
        make_dataset(path)
    assert not (tmp_path / "dataset").exists()


def test_a_label_column_that_was_asked_for_must_be_there(photographs, make_dataset):
    path = write_csv(photographs / "t.csv", "path,kind\ncat/image0.jpg,x\n")
    with pytest.raises(InputError, match=r"no column 'kinds'; did you mean 'kind'.*--label-column"):
        make_dataset(path, label_column="kinds")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"path": ["1.jpg"], "label": [1.0]}, "column 'label' is double, labels are strings or"),
        ({"path": ["1.jpg"], "label": [True]}, "column 'label' is bool"),
        ({"path": ["1.jpg"], "label": [["a"]]}, "column 'label' is list"),
        ({"path": [1]}, "column 'path' is int64, paths are strings"),
        ({"path": ["1.jpg"], "hash": [b"bytes"]}, "column 'hash' holds bytes"),
        ({"file": ["1.jpg"]}, "no column 'path'"),
        ({"path": []}, "column 'path' is null"),
    ],
)
def test_parquet_of_wrong_types_is_refused(tmp_path, write_parquet, make_dataset, columns, message):
    with pytest.raises(InputError, match=message):
        make_dataset(write_parquet(columns))
    assert not (tmp_path / "dataset").exists()


@pytest.mark.parametrize("keep", [0, 4, 100, -100])
def test_damaged_parquet_is_refused(write_parquet, make_dataset, keep):
    path = write_parquet({"path": [f"{i}.jpg" for i in range(1000)]})
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match="cannot be read as Parquet"):
        make_dataset(path)


def test_column_options_are_said_to_be_ignored_without_a_table(photographs, make_dataset):
    with pytest.warns(UserWarning, match="--path-column and --label-column are ignored"):
        make_dataset(photographs, path_column="file")


def test_without_pyarrow_the_install_line_is_named(tmp_path, write_parquet):
    path = write_parquet({"path": ["1.jpg"]})
    # A real absence: the import system of a fresh process finds no such package.
    code = (
        "import sys, runpy; sys.modules['pyarrow'] = None\n"
        f"sys.argv = ['make_shards.py', {str(path)!r}, {str(tmp_path / 'out')!r}]\n"
        "runpy.run_path('tools/make_shards.py', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    assert 'pip install "fastssl[tables]"' in done.stderr
    assert done.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_table_without_a_label_column_names_those_that_it_has(tmp_path):
    (tmp_path / "t.csv").write_text("path,class\na.jpg,cat\n")
    with pytest.warns(UserWarning, match=r"no sample has a label; its columns: class\. "):
        open_source(tmp_path / "t.csv")


def test_a_hundred_thousand_columns_are_found_by_name(tmp_path):
    names = ["path", "label", *(f"c{i}" for i in range(100_000))]
    (tmp_path / "t.csv").write_text("\n".join([",".join(names), ",".join(["1"] * len(names))]))
    (entry,) = open_source(tmp_path / "t.csv").entries()
    assert (entry.name, entry.label, len(entry.columns)) == ("1", 1, 100_000)
