"""Pieces of HTML that sections are made of."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Markup(str):
    """Text that is markup already."""

    __slots__ = ()


def section(title: str, body: str) -> str:
    """Return a section under a heading."""
    return f"<section>\n<h2>{text(title)}</h2>\n{body}\n</section>\n"


def note(words: str) -> str:
    """Return a paragraph in small print."""
    return f'<p class="note">{text(words)}</p>'


def fold(title: str, body: str) -> str:
    """Return what opens when its title is clicked."""
    return f"<details>\n<summary>{text(title)}</summary>\n{body}\n</details>\n"


def cards(charts: Sequence[tuple[str, str]]) -> str:
    """Return (SVG element, words below it) side by side."""
    figures = (
        f'<figure class="card">{chart}{caption(words) if words else ""}</figure>'
        for chart, words in charts
    )
    return f'<div class="grid">{"".join(figures)}</div>'


def table(header: Sequence[str], rows: Sequence[Sequence[str]], num_words: int = 1) -> str:
    """Return a table.

    Args:
        header: of the columns.
        rows: cells; what is ``Markup`` stands as it is.
        num_words: columns from the left that hold words; the others hold numbers.
    """

    def line(tag: str, cells: Sequence[str]) -> str:
        kinds = [' class="n"' if i >= num_words else "" for i in range(len(cells))]
        return "".join(
            f"<{tag}{kind}>{cell if isinstance(cell, Markup) else text(cell)}</{tag}>"
            for kind, cell in zip(kinds, cells, strict=True)
        )

    body = "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<div class="card scroll"><table><tr>{line("th", header)}</tr>{body}</table></div>'


def stacked(words: str, below: str, marks: Sequence[str] = (), kind: str = "") -> Markup:
    """Return a cell: words, smaller ones below them, and what has to be told of them.

    Args:
        words: in the first line.
        below: in small print.
        marks: a few words each, framed.
        kind: class of the words, such as ``published``.
    """
    first = f'<span class="{kind}">{text(words)}</span>' if kind else text(words)
    small = f"<br><small>{text(below)}</small>" if below else ""
    return Markup(first + small + "".join(f' <span class="mark">{text(m)}</span>' for m in marks))


def commands(entries: Sequence[tuple[str, str]]) -> str:
    """Return commands, each under its purpose."""
    items = "".join(
        f"<dt>{text(purpose)}</dt><dd><pre>{text(command)}</pre></dd>"
        for purpose, command in entries
    )
    return f"<dl>{items}</dl>"


def image(pixels: NDArray[np.uint8], label: str) -> str:
    """Return a picture that the page carries in itself."""
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    data = base64.b64encode(out.getvalue()).decode()
    height, width = pixels.shape[:2]
    return (
        f'<img alt="{text(label)}" width="{width}" height="{height}" '
        f'src="data:image/png;base64,{data}">'
    )


def caption(words: str) -> str:
    """Return the words below a figure."""
    return f"<figcaption>{text(words)}</figcaption>"


def text(value: str) -> str:
    """Escape what is no markup."""
    return html.escape(value, quote=True)
