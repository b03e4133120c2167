"""The main path: runs in one process, stopped and resumed, must equal the undisturbed one."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import logging
import os
import re
import shutil
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from fastssl.config import LogConfig
from fastssl.errors import InputError, RunFailed, StoppedBySignal
from fastssl.models import build_trunk, load_trunk
from fastssl.ops.jpeg import has_jpeg
from fastssl.runs.metrics import list_metrics
from fastssl.shards import ShardDataset, open_dataset
from fastssl.shards.making.convert import ConvertConfig, convert
from fastssl.tasks import Jigsaw
from fastssl.training import train
from fastssl.training.stored_state import _YOUNGER
from tests.conftest import NUM_SAMPLES
from tests.holdings import list_children
from tests.patience import wait_until
from tests.small_runs import (
    BATCH,
    assert_equal_states,
    crash_after,
    load_state,
    read_lines,
)

CHOSEN = "native" if has_jpeg() else "webdataset"


@pytest.mark.parametrize(
    ("changes", "stops"),
    [
        ({}, [1, 4, 6, 7, 12]),
        ({"accumulation": 4}, [5]),
        ({"precision": "bf16"}, [5]),
        ({"nested": {"data": {"order": "chunked", "chunk_size": 4, "num_lanes": 4}}}, [7]),
    ],
    ids=["plain", "accumulation", "bf16", "chunked"],
)
def test_a_resumed_run_equals_the_undisturbed_one(configure, changes, stops):
    whole = configure("whole", **changes)
    train(whole)
    stopped = configure("stopped", **changes)
    for step in stops:
        crash_after(stopped, step)
    train(stopped)
    assert_equal_states(load_state(whole), load_state(stopped))
    for name in ("ledger.rank0.jsonl", "trunk.safetensors"):
        assert (whole.output_dir / name).read_bytes() == (stopped.output_dir / name).read_bytes()
    resumes = [
        line["step"]
        for line in read_lines(stopped.output_dir / "metrics.jsonl")
        if line.get("event") == "resume"
    ]
    assert len(resumes) == len(stops)
    assert max(resumes) > 0


def test_a_signal_while_no_batch_comes_saves_what_was_done(configure, monkeypatch):
    from fastssl.loaders import Loader
    from fastssl.training import trainer

    whole, stopped = configure("whole", max_steps=3), configure("stopped", max_steps=3)
    train(whole)
    stream = Loader.__iter__

    def run_dry(loader):
        batches = stream(loader)
        yield next(batches)
        yield next(batches)
        os.kill(os.getpid(), signal.SIGTERM)
        threading.Event().wait()

    with monkeypatch.context() as patch:
        patch.setattr(Loader, "__iter__", run_dry)
        patch.setattr(trainer, "_DATA_PATIENCE_S", 0.01)
        with pytest.raises(StoppedBySignal, match="saved at step 2"):
            train(stopped)
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)
    train(stopped)
    assert_equal_states(load_state(whole), load_state(stopped))


def test_a_grad_scaler_is_resumed_with_its_skips(configure):
    # Halves take a CPU a tenth of a second an image.
    fp16 = {"precision": "fp16", "loss_scale": 2.0**40, "max_steps": 3}
    fp16["nested"] = {"checkpoint": {"every_steps": 1}, "data": {"global_batch_size": 2}}
    whole, stopped = configure("whole", **fp16), configure("stopped", **fp16)
    train(whole)
    crash_after(stopped, 2)
    train(stopped)
    assert_equal_states(load_state(whole), load_state(stopped))
    state = load_state(whole)
    assert state["guard"]["skipped"] > 0
    assert state["scaler"]["scale"] == 2.0 ** (40 - state["guard"]["skipped"])
    # A skipped step has used its samples.
    assert state["loader"]["position"] == 3 * 2


def test_every_part_of_the_state_is_needed(configure):
    """Without it the run cannot go on: nothing in the checkpoint is there for show."""
    config = configure()
    train(dataclasses.replace(config, max_steps=3))
    path = config.output_dir / "checkpoints" / "000000003" / "state.pt"
    state, manifest = load_state(config), json.loads(path.with_name("manifest.json").read_text())
    assert {"task", "optimizer", "loader", "machine"} < state.keys()
    del manifest["sha256"]
    # What earlier versions did not save is asked for, key by key, by tests/faults/training.py.
    for key in sorted(state.keys() - set(_YOUNGER)):
        torch.save({name: value for name, value in state.items() if name != key}, path)
        content = path.read_bytes()
        digest = hashlib.sha256(content).hexdigest()
        manifest["files"]["state.pt"] = {"sha256": digest, "bytes": len(content)}
        path.with_name("manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(InputError, match=rf"state\.pt.*{key}"):
            train(config)


def test_the_ledger_shows_each_sample_once_an_epoch(configure):
    config = configure()
    train(config)
    seen = [
        pair
        for line in read_lines(config.output_dir / "ledger.rank0.jsonl")
        for pair in zip(line["epochs"], line["sample_ids"], strict=True)
    ]
    for epoch in (0, 1):
        assert sorted(i for e, i in seen if e == epoch) == list(range(NUM_SAMPLES))


def test_metrics_have_the_contracts_fields(configure):
    config = configure()
    train(config)
    lines = read_lines(config.output_dir / "metrics.jsonl")
    total = -(-round(2.5 * NUM_SAMPLES) // BATCH)
    assert total % 2 == 1
    assert [line["step"] for line in lines] == [*range(2, total, 2), total]
    fields = "step epoch samples loss lr images_per_s data_wait_ms step_ms skipped fallback_decodes"
    for line in lines:
        assert set(fields.split()) <= set(line)
        assert line["samples"] == line["step"] * BATCH
        assert line["epoch"] == pytest.approx(line["samples"] / NUM_SAMPLES)
        assert line["loss"] > 0
        assert line["images_per_s"] == pytest.approx(BATCH * 1000 / line["step_ms"])


def test_a_line_holds_what_the_table_and_the_task_declare_in_their_order(configure):
    config = configure(max_steps=2)
    train(config)
    (line,) = read_lines(config.output_dir / "metrics.jsonl")
    table = list(list_metrics(Jigsaw))
    assert list(line) == [name for name in table if name in line]
    assert {"accuracy", "accuracy_of_chance", "substituted"} <= set(line)
    assert line["accuracy_of_chance"] == 1 / config.task.num_permutations


def test_the_bar_shows_accuracy_beside_chance(configure, capsys):
    train(configure(nested={"log": {"progress": True}}, max_steps=4))
    assert re.search(r"accuracy=\d+\.\d% \(chance 10\.0%\)", capsys.readouterr().err)


def test_a_batch_larger_than_the_dataset_is_named_before_what_it_does_not_divide_by(configure):
    config = configure(nested={"data": {"global_batch_size": 100}}, accumulation=3)
    remedy = r"\(47 samples\), .*; set --data\.global-batch-size to 45 or less"
    with pytest.raises(InputError, match=remedy):
        train(config)


def test_the_end_says_what_came_out_and_where_it_is_seen(configure, caplog):
    config = configure(max_steps=4)
    with caplog.at_level(logging.INFO):
        train(config)
    (said,) = [text for text in caplog.messages if "tensorboard --logdir" in text]
    accuracy = read_lines(config.output_dir / "metrics.jsonl")[-1]["accuracy"]
    assert said.startswith(f"accuracy {accuracy:.1%} (chance 10.0%); curves and pictures: ")
    assert said.endswith(str(config.output_dir))


def test_metrics_and_curves_show_what_each_stage_of_the_loader_does(configure):
    config = configure()
    train(config)
    line = read_lines(config.output_dir / "metrics.jsonl")[-1]
    assert 0 <= line["data_wait_share"] <= 1
    assert line["loader_ready_batches"] >= 0
    rates = {f"loader_{stage}_images_per_s" for stage in ("read", "check", "decode", "collate")}
    assert rates <= set(line)
    assert all(line[name] > 0 for name in rates)
    events = EventAccumulator(str(config.output_dir / "tensorboard")).Reload()
    shown = {"loader/decode_images_per_s", "loader/ready_batches", "speed/data_wait_share"}
    assert shown <= set(events.Tags()["scalars"])


def test_a_run_says_in_the_end_what_data_cost_it(configure, caplog):
    with caplog.at_level(logging.INFO):
        train(configure())
    assert "of its time for data" in caplog.text
    assert f"the slowest stage of loader {CHOSEN}" in caplog.text


def test_a_run_that_waits_for_data_more_than_allowed_fails_once_it_is_saved(configure):
    config = configure(nested={"log": {"max_data_wait_share": 0.0}})
    with pytest.raises(RunFailed, match=r"log\.max_data_wait_share \(0\.0\) was exceeded: the run"):
        train(config)
    assert (config.output_dir / "trunk.safetensors").exists()
    assert json.loads((config.output_dir / "exit.json").read_text())["code"] == 1


def test_the_chosen_loader_is_stored_and_kept(configure, caplog):
    config = configure(max_steps=2)
    train(config)
    stored = json.loads((config.output_dir / "config.json").read_text())["chosen_loader"]
    assert stored["name"] == CHOSEN
    with caplog.at_level(logging.INFO):
        train(dataclasses.replace(config, max_steps=4))
    assert f"loader: {CHOSEN} (as the run began)" in caplog.text


def test_logged_loss_is_the_mean_of_the_interval(configure):
    every, second = configure("one", nested={"log": {"every_steps": 1}}), configure("two")
    train(every)
    train(second)
    losses = [line["loss"] for line in read_lines(every.output_dir / "metrics.jsonl")]
    pairs = [line["loss"] for line in read_lines(second.output_dir / "metrics.jsonl")]
    intervals = [losses[i : i + 2] for i in range(0, len(losses), 2)]
    assert pairs == pytest.approx([sum(interval) / len(interval) for interval in intervals])


def test_max_steps_saves_exports_and_says_done(configure):
    config = configure(max_steps=4)
    train(config)
    folder = config.output_dir
    assert json.loads((folder / "exit.json").read_text()) == {
        "code": 0,
        "reason": "done",
        "step": 4,
    }
    assert load_state(config)["step"] == 4
    trunk, metadata = load_trunk(folder / "trunk.safetensors")
    assert metadata["step"] == "4"
    for name, value in trunk.state_dict().items():
        assert torch.equal(value, load_state(config)["task"][f"trunk.{name}"]), name


def test_a_finished_run_has_nothing_more_to_do(configure):
    config = configure(max_steps=2)
    train(config)
    before = load_state(config)
    train(config)
    assert_equal_states(before, load_state(config))


def test_more_steps_than_the_schedule_has_are_told_of(configure, caplog):
    config = configure(max_steps=100_000)
    with caplog.at_level(logging.INFO):
        train(config)
    last = json.loads((config.output_dir / "exit.json").read_text())["step"]
    said = f"max_steps (100000) is ignored: the schedule ends at step {last}"
    assert len([text for text in caplog.messages if said in text]) == 1
    assert f"--continue-from {config.output_dir}" in caplog.text


def test_fewer_steps_than_are_done_are_told_as_such(configure, caplog):
    train(configure(max_steps=3))
    with caplog.at_level(logging.INFO):
        train(configure(max_steps=2))
    assert "step 3 is done already, and 2 were asked for: nothing to train" in caplog.messages


def test_a_refused_start_leaves_a_finished_run_finished(configure):
    """Reports and sweeps take a run for done by its exit.json; the refusal stands beside it."""
    config = configure(max_steps=2)
    train(config)
    with pytest.raises(InputError, match=r"schedule\.epochs"):
        train(configure(max_steps=2, nested={"schedule": {"epochs": 99.0}}))
    endings = [config.output_dir / name for name in ("exit.json", "refused.json")]
    ended, refused = (json.loads(path.read_text()) for path in endings)
    assert ended == {"code": 0, "reason": "done", "step": 2}
    assert (refused["code"], refused["step"]) == (2, 2)
    assert "schedule.epochs" in refused["reason"]
    train(dataclasses.replace(config, max_steps=3))
    assert json.loads(endings[0].read_text())["step"] == 3
    assert not endings[1].exists()


def test_a_refused_start_of_a_run_that_is_not_done_keeps_its_step(configure):
    config = configure(max_steps=2)
    train(config)
    ending = config.output_dir / "exit.json"
    ending.write_text('{"code": 75, "reason": "stopped", "step": 2}')
    with pytest.raises(InputError, match=r"schedule\.epochs"):
        train(configure(max_steps=2, nested={"schedule": {"epochs": 99.0}}))
    told = json.loads(ending.read_text())
    assert (told["code"], told["step"]) == (2, 2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP, signal.SIGINT])
def test_a_signal_saves_and_stops(configure, number):
    # So long that the signal never finds it ended: it would then end the tests.
    long = {"schedule": {"epochs": 1000.0}}
    config = configure(nested=long)
    metrics = config.output_dir / "metrics.jsonl"

    def send_when_it_trains():
        wait_until(lambda: metrics.exists() and metrics.read_text(), "it does not train")
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send_when_it_trains)
    handler = signal.getsignal(number)
    sender.start()
    with pytest.raises(StoppedBySignal, match="saved at step"):
        train(config)
    sender.join()
    assert signal.getsignal(number) == handler
    ending = json.loads((config.output_dir / "exit.json").read_text())
    assert ending["code"] == 75
    assert load_state(config)["step"] == ending["step"] >= 2
    last_step = ending["step"] + 3
    whole = configure("whole", nested=long, max_steps=last_step)
    train(whole)
    train(dataclasses.replace(config, max_steps=last_step))
    assert_equal_states(load_state(whole), load_state(config))


def test_a_non_finite_loss_stops_with_its_batch_saved(configure):
    # The head's weights grow without end until their product overflows.
    config = configure(
        nested={"optim": {"lr": 1e3, "head_weight_decay": 100.0, "lr_batch_size": 0}}
    )
    with pytest.raises(RunFailed, match="the loss was not finite at step"):
        train(config)
    ending = json.loads((config.output_dir / "exit.json").read_text())
    assert ending["code"] == 1
    (folder,) = (config.output_dir / "nonfinite").iterdir()
    capsule = torch.load(folder / "rank0.pt", weights_only=True)
    line = read_lines(config.output_dir / "ledger.rank0.jsonl")[capsule["step"] - 1]
    assert capsule["sample_ids"].tolist() == line["sample_ids"]
    assert capsule["images"].shape[0] == BATCH
    assert all(torch.isfinite(v).all() for v in capsule["task"].values() if v.is_floating_point())


def copy_with_damage(dataset_path, target, num_bad):
    shutil.copytree(dataset_path, target)
    dataset = open_dataset(target)
    for sample_id in range(num_bad):
        shard, offset, length = dataset.locate(sample_id)
        with (target / dataset.manifest.shards[shard].name).open("r+b") as file:
            file.seek(offset + length // 2)
            old = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([old[0] ^ 1]))
    dataset.close()
    return target


def test_the_dataset_is_opened_once(configure, monkeypatch):
    opened = []
    open_it = ShardDataset.__init__

    def note(self, path, *more):
        opened.append(path)
        open_it(self, path, *more)

    monkeypatch.setattr(ShardDataset, "__init__", note)
    config = configure(max_steps=1)
    train(config)
    assert opened == [config.data.path]


def test_bad_samples_are_named_in_ledger_and_report(configure, dataset_path, tmp_path):
    path = copy_with_damage(dataset_path, tmp_path / "damaged", 3)
    config = configure(nested={"data": {"path": path}})
    train(config)
    report = read_lines(config.output_dir / "bad_samples.jsonl")
    ledger = [
        pair
        for line in read_lines(config.output_dir / "ledger.rank0.jsonl")
        for pair in line["substituted"]
    ]
    assert [[line["planned"], line["used"]] for line in report] == ledger
    assert {frozenset(line) for line in report} == {
        frozenset(("step", "epoch", "planned", "used", "reason"))
    }
    assert {line["planned"] for line in report if line["epoch"] == 0} == {0, 1, 2}
    last = read_lines(config.output_dir / "metrics.jsonl")[-1]
    assert last["substituted"] >= 6


def test_too_many_bad_samples_stop_the_run(configure, dataset_path, tmp_path):
    path = copy_with_damage(dataset_path, tmp_path / "damaged", 20)
    config = configure(nested={"data": {"path": path}})
    with pytest.raises(RunFailed, match=r"1\d of \d+ samples of epoch 0 are bad"):
        train(config)
    assert json.loads((config.output_dir / "exit.json").read_text())["code"] == 1
    assert len(read_lines(config.output_dir / "bad_samples.jsonl")) >= 10


def test_tensorboard_has_curves_and_pictures_and_purges_lost_steps(configure):
    log = {"pictures_every_steps": 3}
    config = configure(nested={"log": log})
    crash_after(config, 5)
    train(dataclasses.replace(config, max_steps=8))
    events = EventAccumulator(str(config.output_dir / "tensorboard"), {"scalars": 0, "images": 0})
    events.Reload()
    assert {"1_learning/loss", "1_learning/lr", "speed/images_per_s", "1_learning/accuracy"} <= set(
        events.Tags()["scalars"]
    )
    assert [event.step for event in events.Scalars("1_learning/loss")] == [2, 4, 6, 8]
    assert [event.step for event in events.Images("jigsaw/0")] == [1, 3, 6, 8]


def test_event_files_have_the_order_of_their_lives(configure):
    """Also of two that begin in one second: TensorBoard numbers those, and puts 10 before 9."""
    config = configure()
    crash_after(config, 3)
    folder = config.output_dir / "tensorboard"
    (first,) = folder.iterdir()
    first = first.rename(folder / f"events.out.tfevents.{int(time.time()):010d}.~.1.9")
    train(config)
    assert min(folder.iterdir()) == first


def test_pictures_show_the_same_puzzles_also_in_the_next_life(configure):
    config = configure(nested={"log": {"pictures_every_steps": 3}})
    crash_after(config, 3)
    train(dataclasses.replace(config, max_steps=9))
    events = EventAccumulator(str(config.output_dir / "tensorboard"), {"images": 0}).Reload()
    pictures = [
        np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
        for event in events.Images("jigsaw/0")
    ]
    side = 3 * (config.task.patch + 8)  # the puzzle as asked, left of the answer
    assert len(pictures) == 4
    for picture in pictures[1:]:
        np.testing.assert_array_equal(picture[:side, :side], pictures[0][:side, :side])


def test_a_run_with_pictures_equals_the_one_without(configure):
    plain = configure("plain", nested={"log": {"tensorboard": False}})
    drawn = configure("drawn", nested={"log": {"pictures_every_steps": 1}})
    train(plain)
    train(drawn)
    assert_equal_states(load_state(plain), load_state(drawn))


def test_metrics_of_a_resumed_run_are_those_of_the_undisturbed_one(configure):
    """Also where a checkpoint falls into a logged interval: steps 3 and 9 with a line every 2."""
    whole, stopped = configure("whole"), configure("stopped")
    train(whole)
    crash_after(stopped, 4)
    train(stopped)
    lines = [
        [line for line in read_lines(config.output_dir / "metrics.jsonl") if "event" not in line]
        for config in (whole, stopped)
    ]
    for a, b in zip(*lines, strict=True):
        assert a["step"] == b["step"]
        assert a["loss"] == b["loss"]
        assert a["accuracy"] == b["accuracy"]


def test_another_runs_checkpoint_is_refused_without_its_config(configure):
    train(configure(max_steps=1))
    (configure().output_dir / "config.json").unlink()
    with pytest.raises(InputError, match="holds another run"):
        train(configure(max_steps=2, seed=5))
    train(configure(max_steps=2))  # the refused one has left nothing behind


def test_checkpoints_that_are_gone_are_missed(configure):
    config = configure(max_steps=3)
    train(config)
    shutil.rmtree(config.output_dir / "checkpoints" / "000000003")
    with pytest.raises(InputError, match="latest names it, but it is gone"):
        train(config)
    assert len(read_lines(config.output_dir / "ledger.rank0.jsonl")) == 3


def test_a_killed_loader_worker_ends_the_run_in_one_line(configure):
    config = configure(nested={"schedule": {"epochs": 1000.0}, "data": {"loader": "webdataset"}})
    ledger = config.output_dir / "ledger.rank0.jsonl"
    before = list_children()  # Inductor's workers, if another test has compiled

    def kill_when_it_trains():
        wait_until(lambda: ledger.exists() and ledger.read_text(), "it does not train")
        for child in list_children() - before:
            if b"resource_tracker" not in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)

    killer = threading.Thread(target=kill_when_it_trains)
    killer.start()
    with pytest.raises(RunFailed, match="a loader worker was killed"):
        train(config)
    killer.join()


def test_a_non_finite_gradient_is_masked_too(configure):
    """The loss is finite; its gradient, scaled beyond what fp32 holds, is not."""
    fp16 = {"precision": "fp16", "loss_scale": 2.0**127}
    fp16["nested"] = {"data": {"global_batch_size": 2}}
    config, first = configure(max_steps=2, **fp16), configure("first", max_steps=1, **fp16)
    train(config)
    train(first)
    a, b = load_state(config), load_state(first)
    weights = [name for name, value in a["task"].items() if value.dim() > 1]
    assert all(torch.equal(a["task"][name], b["task"][name]) for name in weights)
    assert a["guard"]["skipped"] == 2


def test_labels_do_not_reach_a_pretext_task(configure, monkeypatch):
    seen = []
    prepare = Jigsaw.prepare

    def spy(self, batch, seed, dtype):
        seen.append(batch.labels)
        return prepare(self, batch, seed, dtype)

    monkeypatch.setattr(Jigsaw, "prepare", spy)
    train(configure(max_steps=2))
    assert seen == [None] * 3  # one of them where the step's memory is estimated


def test_targets_do_not_reach_a_pretext_task(configure, dataset_path, tmp_path, monkeypatch):
    photos = sorted((dataset_path.parent / "photos").rglob("0*.jpg"))
    rows = [f"{path},{number}\n" for number, path in enumerate(photos)]
    (tmp_path / "table.csv").write_text("path,age\n" + "".join(rows))
    convert(ConvertConfig(tmp_path / "table.csv", tmp_path / "aged", targets=("age:int8",)))
    seen = []
    prepare = Jigsaw.prepare

    def spy(self, batch, seed, dtype):
        seen.append(batch.targets)
        return prepare(self, batch, seed, dtype)

    monkeypatch.setattr(Jigsaw, "prepare", spy)
    data = {"path": tmp_path / "aged", "targets": ("age",)}
    train(configure(max_steps=2, nested={"data": data}))
    assert seen == [{}] * 3


def test_another_seed_is_another_run(configure):
    one, two = configure("one", max_steps=1, seed=1), configure("two", max_steps=1, seed=2)
    train(one)
    train(two)
    a, b = load_state(one)["task"], load_state(two)["task"]
    weights = [name for name, value in a.items() if value.dim() == 4]
    assert weights
    assert all(not torch.equal(a[name], b[name]) for name in weights)
    ledgers = [(c.output_dir / "ledger.rank0.jsonl").read_text() for c in (one, two)]
    assert ledgers[0] != ledgers[1]


def test_another_run_in_the_directory_is_refused(configure):
    train(configure(max_steps=1))
    with pytest.raises(InputError, match=r"holds another run; different: seed \(old 0, new 5\)"):
        train(configure(max_steps=1, seed=5))
    ending = json.loads((configure().output_dir / "refused.json").read_text())
    assert ending["code"] == 2


def test_another_thread_count_is_a_warning(configure, caplog):
    config = configure()
    train(dataclasses.replace(config, max_steps=3))
    torch.set_num_threads(2)
    try:
        with caplog.at_level(logging.WARNING):
            train(dataclasses.replace(config, max_steps=4))
    finally:
        torch.set_num_threads(1)
    assert "num_threads was 1 when the checkpoint was saved and is 2 now" in caplog.text


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nested": {"data": {"global_batch_size": 9}}, "accumulation": 2}, "set --data.global"),
        ({"nested": {"data": {"global_batch_size": 48}}}, "allow-repeat-in-batch"),
        ({"sync_bn": True}, "sync_bn"),
        ({"trunk": "resnet05"}, "did you mean 'resnet50'"),
        ({"device": "cuda"}, "needs a GPU"),
        ({"nested": {"task": {"num_permutations": 400_000}}}, r"9! = 362880"),
    ],
)
def test_wrong_input_is_refused_before_the_first_step(configure, changes, message):
    if changes.get("device") == "cuda" and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(InputError, match=message):
        train(configure(**changes))


def test_no_tensorboard_when_it_is_switched_off(configure):
    config = configure(max_steps=2)
    log = LogConfig(tensorboard=False, progress=False)
    train(dataclasses.replace(config, log=log))
    assert not (config.output_dir / "tensorboard").exists()


def test_trunk_of_a_run_is_a_plain_trunk(configure):
    config = configure(max_steps=1)
    train(config)
    trunk, _ = load_trunk(config.output_dir / "trunk.safetensors")
    assert trunk.state_dict().keys() == build_trunk("resnet9", 1).state_dict().keys()
