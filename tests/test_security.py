"""docs/security.md tells the truth, and what it says of the source is true of all of it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastssl.commands.frame import name_command
from fastssl.runs.sweep import SWEEP_NAME, Trial, opened_folder

ROOT = Path(__file__).resolve().parent.parent
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="ascii")
SOURCES = [path for room in ("fastssl", "loaders", "tools") for path in (ROOT / room).rglob("*.py")]
# What processes of ours say to each other, over pipes that only they hold.
PICKLING = {"fastssl/system/limited.py", "fastssl/system/workers.py"}
FORBIDDEN = re.compile(
    r"(pickle\.(load|Unpickler)|(c|cloud)pickle\.|dill\.|joblib\.|marshal\.|shelve\.|torch\.jit\."
    r"|eval$|exec$|os\.(system|popen)|yaml\.(load|unsafe_load|full_load)$|pandas\.read_pickle)"
)
UNPACKING = re.compile(r"(\.extract|\.extractall|unpack_archive)$")


def list_rows() -> list[tuple[str, str]]:
    """Return what is held, and by what, of every line of the table."""
    table = PAGE[PAGE.index("| what | held by |") :].splitlines()[2:]
    cells = [tuple(cell.strip() for cell in row.strip("|").rsplit("|", 1)) for row in table]
    return [(what, held) for what, held in cells if not what.startswith("**")]


def list_tests() -> set[str]:
    """Return the names of all tests."""
    source = "".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))
    return set(re.findall(r"^def (test_\w+)\(", source, re.MULTILINE))


def test_every_test_that_a_page_names_is_there():
    for name in ("reliability.md", "security.md"):
        text = (ROOT / "docs" / name).read_text(encoding="ascii")
        named = set(re.findall(r"`(test_\w+)`", text))
        assert len(named) > 10
        assert named <= list_tests()


def test_every_line_of_the_threat_model_names_tests_that_are_there():
    there, rows = list_tests(), list_rows()
    assert len(rows) > 50
    for what, held in rows:
        named = set(re.findall(r"`(test_\w+)`", held))
        assert named or held == "the same", what
        assert named <= there, what


def list_calls(path: Path) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of a module, each with what is called as it is written."""
    for node in ast.walk(ast.parse(path.read_text(encoding="ascii"))):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def find_executing(name: str, call: ast.Call, home: str) -> str | None:
    """Return what is wrong with a call that may execute what it reads, or None."""
    given = {word.arg: ast.unparse(word.value) for word in call.keywords}
    if name == "torch.load" and given.get("weights_only") != "True":
        return "torch.load without weights_only=True"
    if name in ("np.load", "numpy.load") and given.get("allow_pickle") != "False":
        return "np.load without allow_pickle=False"
    if given.get("shell", "False") != "False":
        return "a shell"
    if name == "yaml.load":  # whose loader makes strings, lists and dicts alone
        has_own = home == "fastssl/commands/grid.py" and ast.unparse(call.args[1]) == "Loader"
        return None if has_own else name
    if name.startswith("pickle.load") and home in PICKLING:
        return None
    return name if FORBIDDEN.match(name) else None


@pytest.mark.parametrize(
    ("text", "is_wrong"),
    [
        ("torch.load(p)", True),
        ("torch.load(p, weights_only=False)", True),
        ("torch.load(p, weights_only=True)", False),
        ("np.load(p)", True),
        ("np.load(p, allow_pickle=False)", False),
        ("pickle.loads(b)", True),
        ("yaml.load(f, yaml.Loader)", True),
        ("subprocess.run(c, shell=True)", True),
        ("eval(c)", True),
        ("model.eval()", False),
    ],
)
def test_what_executes_is_found(text, is_wrong):
    call = ast.parse(text, mode="eval").body
    found = find_executing(ast.unparse(call.func), call, "fastssl/x.py")
    assert (found is not None) == is_wrong


def test_nothing_that_executes_is_loaded():
    assert len(SOURCES) > 300
    found = []
    for path in SOURCES:
        home = path.relative_to(ROOT).as_posix()
        for name, call in list_calls(path):
            wrong = find_executing(name, call, home)
            found += [f"{home}:{call.lineno}: {wrong}"] if wrong else []
    assert found == []


def test_archives_are_never_unpacked():
    found = [
        f"{path.relative_to(ROOT)}:{call.lineno}: {name}"
        for path in SOURCES
        for name, call in list_calls(path)
        if UNPACKING.search(name)
    ]
    assert found == []


def test_a_result_tells_its_command_without_passwords():
    address = "https://anna:s3cret@host/ds?token=abc"
    told = name_command("evaluate", "knn", "--data.path", address, "--json", "knn of all.json")
    assert told == "fastssl evaluate knn --data.path 'https://host/ds?...' --json 'knn of all.json'"


def test_a_sweep_writes_no_password_down(tmp_path):
    words = ("train", "demo", "--data.path", "https://anna:s3cret@host/ds?token=abc")
    trials = [Trial(name="first", command=words)]
    for _ in range(2):  # the second finds its own trials again
        with opened_folder(trials, tmp_path / "sweep"):
            pass
    text = (tmp_path / "sweep" / SWEEP_NAME).read_text()
    assert "https://host/ds" in text
    assert "s3cret" not in text
    assert "abc" not in text
