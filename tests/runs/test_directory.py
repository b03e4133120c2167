"""One run at a time, one identity, logs cut to the checkpoint."""

import dataclasses
import json
import logging
import os

import pytest

from fastssl.batch import Substitution
from fastssl.commands.frame import run_command
from fastssl.commands.train import main
from fastssl.config import flatten, list_defaults
from fastssl.errors import InputError, RunFailed
from fastssl.runs import directory as run_directory
from fastssl.runs.directory import check_entries, check_identity, locked_run, write_config
from fastssl.runs.endings import record_refusal
from fastssl.runs.identity import identity
from fastssl.shards.manifest import read_manifest
from fastssl.studies import build_recipe
from fastssl.training.bad_samples import BadSampleAccount


def test_a_second_run_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(run_directory, "LOCK_PATIENCE_S", 0.3)
    with locked_run(tmp_path / "run"):
        with pytest.raises(InputError, match="in use by another run"):
            with locked_run(tmp_path / "run"):
                pass
    with locked_run(tmp_path / "run"):
        pass


def test_a_file_in_place_of_the_directory_is_refused(tmp_path):
    (tmp_path / "run").touch()
    with pytest.raises(InputError, match="is a file"), locked_run(tmp_path / "run"):
        pass


def test_a_datasets_folder_is_refused_and_left_as_it_is(dataset_path):
    before = sorted(dataset_path.iterdir())
    with pytest.raises(InputError, match="is the folder of a dataset"), locked_run(dataset_path):
        pass
    assert sorted(dataset_path.iterdir()) == before


def test_a_directory_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"), locked_run(tmp_path / "file" / "run"):
        pass


def test_another_identity_is_refused_with_every_difference(tmp_path):
    config = build_recipe("demo")
    write_config(tmp_path, identity(config, "a" * 64), {}, ("webdataset", "asked for"))
    check_identity(tmp_path, identity(config, "a" * 64), list_defaults(config))
    other = dataclasses.replace(config, seed=7, trunk="resnet50")
    with pytest.raises(InputError) as caught:
        check_identity(tmp_path, identity(other, "b" * 64), list_defaults(other))
    message = str(caught.value)
    assert "trunk (old 'resnet9', new 'resnet50')" in message
    assert "seed (old 0, new 7)" in message
    assert "another dataset" in message
    assert "a" * 64 not in message


def test_another_dataset_is_told_by_its_place_before_all_else(dataset_path, tmp_path):
    """What the recipe chose by the data differs too, and nobody gave it."""
    config = build_recipe("demo")
    digest = read_manifest(dataset_path).digest
    settings = {"data.path": str(dataset_path)}
    write_config(tmp_path, identity(config, digest), settings, ("webdataset", "asked for"))
    schedule = dataclasses.replace(config.schedule, epochs=5.58)
    data = dataclasses.replace(config.data, global_batch_size=24)
    other = dataclasses.replace(config, schedule=schedule, data=data)
    wanted = rf"different: another dataset \(was {dataset_path}, \d+ samples\); give"
    with pytest.raises(InputError, match=wanted):
        check_identity(tmp_path, identity(other, "b" * 64), list_defaults(other))


@pytest.mark.parametrize(("dct", "is_refused"), [("exact", False), ("scaled", True)])
def test_a_field_younger_than_the_run_counts_as_its_default(tmp_path, dct, is_refused):
    config = build_recipe("demo")
    old = identity(config, "a" * 64)
    del old["data.dct"]
    write_config(tmp_path, old, {}, ("webdataset", "asked for"))
    config = dataclasses.replace(config, data=dataclasses.replace(config.data, dct=dct))
    new, defaults = identity(config, "a" * 64), list_defaults(config)
    if not is_refused:
        check_identity(tmp_path, new, defaults)
        return
    with pytest.raises(InputError, match=r"data\.dct \(old 'exact', new 'scaled'\); give"):
        check_identity(tmp_path, new, defaults)


def test_a_field_that_is_gone_is_a_difference(tmp_path):
    config = build_recipe("demo")
    new = identity(config, "a" * 64)
    write_config(tmp_path, {**new, "data.magic": 3}, {}, ("webdataset", "asked for"))
    with pytest.raises(InputError, match=r"data\.magic \(old 3, new 'absent'\)"):
        check_identity(tmp_path, new, list_defaults(config))


def test_every_field_of_the_identity_but_name_and_digest_has_a_default():
    config = build_recipe("kolesnikov19_exemplar")
    named = set(identity(config, "a" * 64)) - set(list_defaults(config))
    assert named == {"recipe", "dataset_digest"}


@pytest.mark.parametrize(
    "change",
    [
        lambda c: dataclasses.replace(c, max_steps=5),
        lambda c: dataclasses.replace(c, output_dir="elsewhere"),
        lambda c: dataclasses.replace(c, data=dataclasses.replace(c.data, loader="fixed")),
        lambda c: dataclasses.replace(c, data=dataclasses.replace(c.data, num_threads=3)),
        lambda c: dataclasses.replace(c, data=dataclasses.replace(c.data, ledger=True)),
        lambda c: dataclasses.replace(c, log=dataclasses.replace(c.log, every_steps=1)),
    ],
)
def test_what_is_free_is_no_part_of_the_identity(change):
    config = build_recipe("demo")
    assert identity(change(config), "a" * 64) == identity(config, "a" * 64)


def bad(epoch, planned):
    return Substitution(0, epoch, planned, planned + 1, "CRC")


def test_ten_bad_samples_and_more_than_the_share_stop_the_run():
    account = BadSampleAccount(1000, 0.01)
    account.add([bad(0, i) for i in range(9)], 100)  # 9 %, but only nine
    with pytest.raises(RunFailed, match=r"10 of 200 samples of epoch 0 are bad"):
        account.add([bad(0, 9)], 200)


def test_the_share_is_that_of_the_epochs_samples_so_far():
    account = BadSampleAccount(10_000, 0.01)
    account.add([bad(0, i) for i in range(50)], 5000)  # exactly the share
    with pytest.raises(RunFailed, match="51 of 5000"):
        account.add([bad(0, 50)], 5000)


def test_every_epoch_counts_for_itself():
    account = BadSampleAccount(1000, 0.01)
    for epoch in range(5):
        account.add([bad(epoch, i) for i in range(9)], 1000 * epoch + 900)
    assert account.total == 45


def test_the_account_goes_on_after_a_resume():
    first = BadSampleAccount(1000, 0.001)
    first.add([bad(0, i) for i in range(9)], 100)
    second = BadSampleAccount(1000, 0.001)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    with pytest.raises(RunFailed, match="10 of 110"):
        second.add([bad(0, 99)], 110)


def test_damage_to_the_config_is_named(tmp_path, caplog):
    (tmp_path / "config.json").write_text("{")
    with caplog.at_level(logging.ERROR), pytest.raises(InputError, match=r"config\.json cannot"):
        check_identity(tmp_path, {}, {})


# ------------------------------------------------------------------ links, and what is no file


@pytest.fixture
def outside(tmp_path):
    """A file of somebody else's."""
    path = tmp_path / "outside"
    path.write_text("precious")
    return path


@pytest.fixture
def folder(tmp_path):
    path = tmp_path / "run"
    path.mkdir()
    return path


@pytest.mark.parametrize(
    "name", ["metrics.jsonl", "bad_samples.jsonl", "ledger.rank77.jsonl", "config.json"]
)
def test_a_link_in_place_of_a_file_is_refused(folder, outside, name):
    (folder / name).symlink_to(outside)
    with pytest.raises(InputError, match=f"{name} is a symbolic link, wanted a regular file"):
        check_entries(folder)


@pytest.mark.parametrize("name", ["checkpoints", "tensorboard", "nonfinite"])
def test_a_link_in_place_of_a_folder_is_refused(folder, tmp_path, name):
    (folder / name).symlink_to(tmp_path)
    with pytest.raises(InputError, match=f"{name} is a symbolic link; a run changes nothing out"):
        check_entries(folder)


def test_a_file_in_place_of_a_folder_is_refused(folder):
    (folder / "checkpoints").touch()
    with pytest.raises(InputError, match="checkpoints is no folder"):
        check_entries(folder)


def test_a_second_name_of_a_log_is_refused(folder, outside):
    os.link(outside, folder / "metrics.jsonl")
    with pytest.raises(InputError, match=r"has other names too .* cp .*metrics"):
        check_entries(folder)


@pytest.mark.parametrize("name", ["metrics.jsonl", "config.json"])
def test_a_pipe_is_not_waited_for(folder, name):
    os.mkfifo(folder / name)
    with pytest.raises(InputError, match=f"{name} is a pipe"):
        check_entries(folder)


def test_a_lock_that_is_a_link_makes_no_file_elsewhere(folder, tmp_path):
    (folder / ".lock").symlink_to(tmp_path / "made")
    with pytest.raises(InputError, match=r"\.lock is a symbolic link"), locked_run(folder):
        pass
    assert not (tmp_path / "made").exists()


def test_files_that_are_none_of_a_runs_are_let_be(folder, outside):
    (folder / "notes.txt").symlink_to(outside)
    (folder / "ledger.rankx.jsonl").symlink_to(outside)
    check_entries(folder)


def test_a_config_without_end_is_not_read(folder):
    with (folder / "config.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(InputError, match="more than 16,777,216 bytes"):
        check_identity(folder, {}, {})


def test_a_config_nested_without_end_is_named(folder):
    (folder / "config.json").write_text('{"identity":' + "[" * 100_000)
    with pytest.raises(InputError, match=r"config\.json cannot be read \(RecursionError"):
        check_identity(folder, {}, {})


def test_a_command_line_that_is_refused_leaves_a_finished_run_finished(tmp_path):
    done = '{"code": 0, "reason": "done", "step": 400}'
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "exit.json").write_text(done)
    record_refusal(["--output-dir", str(tmp_path)], InputError("--width (0) must be positive"))
    assert (tmp_path / "exit.json").read_text() == done
    assert "--width (0)" in (tmp_path / "refused.json").read_text()


def test_under_torchrun_a_refusal_stands_in_exit_json_though_the_run_is_done(tmp_path, monkeypatch):
    """Its exit code tells nothing, so this is the only place where a script can look."""
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "0")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "exit.json").write_text('{"code": 0, "reason": "done", "step": 400}')
    record_refusal(["--output-dir", str(tmp_path)], InputError("--width (0) must be positive"))
    told = json.loads((tmp_path / "exit.json").read_text())
    assert (told["code"], told["step"]) == (2, 400)


def test_no_file_of_a_run_holds_the_password(tmp_path, capsys):
    address = "https://anna:s3cret@127.0.0.1:1/ds?token=t0ken"
    with pytest.raises(SystemExit):
        run_command(
            lambda: main(["demo", "--data.path", address, "--output-dir", str(tmp_path / "a")])
        )
    (tmp_path / "config.json").write_text("{}")
    words = ["--output-dir", str(tmp_path), "--data.path", address, "--width", "0"]
    record_refusal(words, InputError(f"{address}: out of reach"))
    config = build_recipe("demo")
    data = dataclasses.replace(config.data, path=address)
    write_config(tmp_path, {}, flatten(dataclasses.replace(config, data=data)), ("native", "x"))
    told = [path.read_text() for path in tmp_path.rglob("*.json")]
    assert len(told) == 3
    told += capsys.readouterr()
    assert all("https://127.0.0.1:1/ds" in text for text in told[:3])
    assert not [text for text in told if "s3cret" in text or "t0ken" in text]
