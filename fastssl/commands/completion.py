"""Write what bash or zsh needs to complete the commands, their options and the options' words.

    fastssl completion bash > ~/.local/share/bash-completion/completions/fastssl
    fastssl completion zsh >> ~/.zshrc

The words are read off the helps, so nothing is said twice; write it again after an update.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import tyro

from . import COMMANDS
from .evaluate import list_tasks
from .frame import parse_arguments

_OPTION = re.compile(r"(--[a-z][a-z0-9.-]*)(?: \{([\w.,-]+)\}| (true\|false))?")
_SCRIPT = """\
_fastssl() {{
    local word=${{COMP_WORDS[COMP_CWORD]}} before=${{COMP_WORDS[COMP_CWORD-1]}} words=
    if [ "$COMP_CWORD" -eq 1 ]; then
        words="{commands} --help --version"
    else
        case "${{COMP_WORDS[1]}} $before" in
{values}
        *) if [[ $word == -* ]]; then
            case "${{COMP_WORDS[1]}}" in
{options}
            esac
        fi ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$word"))
}}
complete -o default -F _fastssl fastssl
"""
# A zsh whose start-up files say nothing of completion has none.
ZSH_BEGIN = """\
(( $+functions[compdef] )) || { autoload -U +X compinit && compinit -i }
autoload -U +X bashcompinit && bashcompinit
"""


@dataclass(frozen=True)
class Completion:
    """Print the completion of commands and options for a shell."""

    shell: Annotated[Literal["bash", "zsh"], tyro.conf.arg(metavar="bash|zsh")]
    """Shell that reads it: bash from a file in ~/.local/share/bash-completion/completions, zsh from
    ~/.zshrc."""


def read_help(name: str, *words: str) -> str:
    """Return the help of a command, without line breaks inside an option."""
    said, columns = io.StringIO(), os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "1000"
    try:
        with contextlib.redirect_stdout(said), contextlib.suppress(SystemExit):
            importlib.import_module(COMMANDS[name].module).main([*words, "--help"])
    finally:
        os.environ.pop("COLUMNS")
        if columns is not None:
            os.environ["COLUMNS"] = columns
    return re.sub(r"\x1b\[[0-9;]*m", "", said.getvalue())


def list_options(name: str) -> dict[str, list[str]]:
    """Return the options of a command and the words that each takes, if those are few."""
    texts = [read_help(name)]
    if name == "train":  # a recipe of each task, for a task brings options of its own
        from ..studies import build_recipe, recipe_names

        recipes = {type(build_recipe(recipe).task): recipe for recipe in recipe_names(False)}
        texts += [read_help(name, recipe) for recipe in recipes.values()]
    if name == "evaluate":
        texts += [read_help(name, task) for task in list_tasks()]
    found: dict[str, set[str]] = {}
    for option, words, booleans in _OPTION.findall("\n".join(texts)):
        # Without a word to offer, the shell offers files.
        offered = {*words.split(","), *booleans.split("|")} - {"", "None"}
        found.setdefault(option, set()).update(offered)
    return {option: sorted(words) for option, words in sorted(found.items())}


def list_cases() -> Iterator[tuple[str, str, list[str]]]:
    """Yield command, word before (empty for any) and what may stand there."""
    from ..studies import recipe_names

    recipes = " ".join(recipe_names(has_cells=False))
    for name in COMMANDS:
        if name == "completion":
            yield name, name, ["bash", "zsh"]
            continue
        options = list_options(name)
        for option, words in options.items():
            if words:
                yield name, option, words
        if name in ("train", "bench-training"):
            yield name, name, [recipes, "--list" if name == "train" else "--help"]
        if name == "evaluate":
            yield name, name, [*list_tasks()]
        yield name, "", [*options]


def build_script(shell: str) -> str:
    """Return the script for a shell."""
    values, options = [], []
    for name, before, words in list_cases():
        said = f'words="{" ".join(words)}"'
        if before:
            values.append(f'        "{name} {before}") {said} ;;')
        else:
            options.append(f"            {name}) {said} ;;")
    script = _SCRIPT.format(
        commands=" ".join(COMMANDS), values="\n".join(values), options="\n".join(options)
    )
    return (ZSH_BEGIN if shell == "zsh" else "") + script


def main(arguments: Sequence[str]) -> None:
    """Print the script."""
    print(build_script(parse_arguments(Completion, arguments).shell), end="")
