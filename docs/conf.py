"""How Sphinx builds the pages; ``make docs`` calls it (tools/build_docs.sh).

The pages are the Markdown of the repository as it stands: README first, then ``docs/``. The API
pages come from the docstrings.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import fastssl
from fastssl.fields import Documented

project = "fastssl"
release = version = fastssl.__version__
root_doc = "README"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
]
html_theme = "furo"
html_title = f"fastssl {version}"
myst_heading_anchors = 4  # links to headings, named as GitHub names them

# Types stand once, in the list of arguments. Those of a config's fields stand in its docstring.
autoclass_content = "both"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_use_ivar = True
napoleon_use_rtype = False
autodoc_member_order = "bysource"
suppress_warnings = ["ref.python"]  # a word of a field's type that is an attribute elsewhere

_CONTENTS = """

```{{toctree}}
:hidden:
:caption: {}

{}
```
"""
_PAGES = {
    "Data": ("shards", "loaders", "betons", "synthetic", "scaling"),
    "Training": ("training", "tasks", "trunks", "metrics", "reliability", "performance"),
    "Evaluation": ("evaluation", "sweeps", "report", "studies"),
    "From Python": ("library", "api"),
    "Trust": ("security",),
}


def add_contents(app: Any, name: str, source: list[str]) -> None:  # noqa: ARG001 - Sphinx's
    """Put the list of pages behind README, which GitHub shows without it."""
    if name == root_doc:
        for caption, pages in _PAGES.items():
            source[0] += _CONTENTS.format(caption, "\n".join(f"docs/{page}" for page in pages))
        source[0] += _CONTENTS.format("The project", "CONTRIBUTING\ncsrc/README\nCHANGELOG")


def leave_out_fields(
    app: Any,
    what: str,
    name: str,
    member: Any,  # noqa: ARG001
    skip: bool,
    options: Any,  # noqa: ARG001
) -> bool:
    """Leave fields of dataclasses to the docstring of their class."""
    if what != "class":
        return skip
    place = app.env.current_document
    kind = getattr(importlib.import_module(place.autodoc_module), place.autodoc_class)
    is_told = issubclass(kind, Documented) and name in getattr(kind, "__dataclass_fields__", ())
    return skip or is_told


def leave_out_defaults(
    app: Any,  # noqa: ARG001
    what: str,
    name: str,  # noqa: ARG001
    thing: Any,
    options: Any,  # noqa: ARG001
    signature: str,  # noqa: ARG001
    returns: str,
) -> tuple[str, str] | None:
    """Show no signature of a dataclass: it says again, and worse, what its docstring says."""
    if what == "class" and dataclasses.is_dataclass(thing):
        return "", returns
    return None


def keep_colons(
    app: Any,  # noqa: ARG001
    what: str,
    name: str,  # noqa: ARG001
    thing: Any,  # noqa: ARG001
    options: Any,  # noqa: ARG001
    lines: list[str],
) -> None:
    """Begin with an empty comment: what stands before a colon, napoleon takes for a type."""
    if what in ("attribute", "data", "property"):
        lines[:0] = ["..", ""]


def setup(app: Any) -> None:
    """Connect the above to Sphinx."""
    app.connect("autodoc-process-docstring", keep_colons, priority=400)
    app.connect("source-read", add_contents)
    app.connect("autodoc-skip-member", leave_out_fields)
    app.connect("autodoc-process-signature", leave_out_defaults)
