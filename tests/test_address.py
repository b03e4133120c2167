"""Folders and addresses are told apart, however they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastssl.address import hide_credentials, parse_place
from fastssl.commands.frame import parse_arguments
from fastssl.config import LoaderConfig, flatten


@pytest.mark.parametrize(
    ("given", "place"),
    [
        ("shards", Path("shards")),
        ("/data/shards/", Path("/data/shards")),
        (Path("shards"), Path("shards")),
        ("C:/data", Path("C:/data")),
        ("s3:/bucket/ds", Path("s3:/bucket/ds")),
        ("file:///data/shards", Path("/data/shards")),
        ("s3://bucket/ds", "s3://bucket/ds"),
        ("s3://bucket/ds/", "s3://bucket/ds"),
        ("HTTPS://host/Ds", "https://host/Ds"),
        ("simplecache::s3://bucket/ds", "simplecache::s3://bucket/ds"),
        (Path("s3://bucket/ds"), "s3://bucket/ds"),
        (Path("http://host:8000/ds"), "http://host:8000/ds"),
    ],
)
def test_a_place_is_a_path_or_an_address(given, place):
    assert parse_place(given) == place
    assert type(parse_place(given)) is type(place) or isinstance(place, Path)


def test_a_folder_that_is_called_like_an_address_is_a_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("s3:/ds").mkdir(parents=True)
    assert parse_place(Path("s3://ds")) == Path("s3:/ds")


@pytest.mark.parametrize("given", ["s3://bucket/ds", Path("s3://bucket/ds")])
def test_an_address_reaches_the_config_whole(given):
    config = LoaderConfig(path=given)
    assert config.path == "s3://bucket/ds"
    assert flatten(config)["path"] == "s3://bucket/ds"


def test_a_folder_stays_a_path():
    assert LoaderConfig(path="shards").path == Path("shards")
    assert flatten(LoaderConfig(path=Path("shards")))["path"] == "shards"


def test_the_command_line_takes_both():
    assert (
        parse_arguments(LoaderConfig, ["--path", "s3://b/ds"], LoaderConfig()).path == "s3://b/ds"
    )
    assert parse_arguments(LoaderConfig, ["--path", "ds"], LoaderConfig()).path == Path("ds")


def test_the_help_names_both(capsys):
    with pytest.raises(SystemExit):
        parse_arguments(LoaderConfig, ["--help"], LoaderConfig())
    assert "FOLDER|ADDRESS" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("https://anna:s3cret@host/ds", "https://host/ds"),
        ("https:/anna:s3cret@host/ds", "https:/host/ds"),
        ("simplecache::https://a:p@ss@host/x: no", "simplecache::https://host/x: no"),
        ("(url='https://host/x?sig=abc&b=1')", "(url='https://host/x?...')"),
        ("s3://bucket/mail@home", "s3://bucket/mail@home"),
        ("mail anna@host: what is /a:b?", "mail anna@host: what is /a:b?"),
    ],
)
def test_a_text_is_shown_without_what_its_addresses_give_away(text, shown):
    assert hide_credentials(text) == shown
