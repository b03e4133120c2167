"""What a loader says of itself, and how auto chooses one."""

from __future__ import annotations

import contextlib
import itertools

import pytest
import torch

from fastssl.batch import Batch
from fastssl.config import LoaderConfig
from fastssl.loaders import build_loader, resolve_loader
from fastssl.loaders.choice import is_installed
from fastssl.loaders.telemetry import LoaderTelemetry, StageReport, describe_data, merge_reports
from fastssl.ops.jpeg import has_jpeg
from fastssl.shards import open_dataset
from fastssl.views import ViewSpec

DECODE_BOUND = StageReport(10, 320, 5, {"read": 1.0, "decode": 8.0}, {"read": 1, "decode": 2})


def make_batch(**seconds):
    ids = torch.arange(4)
    images = torch.zeros(4, 1, 2, 2, 3, dtype=torch.uint8)
    return Batch(images, ids, torch.zeros_like(ids), None, stage_s=seconds)


def test_a_stages_rate_is_that_of_all_its_workers():
    assert DECODE_BOUND.rates() == {"read": 320.0, "decode": 80.0}
    assert DECODE_BOUND.bottleneck() == "decode"
    assert DECODE_BOUND.queue_depth == 0.5


def test_ranks_add_their_workers_and_times_do_not():
    ranks = merge_reports([DECODE_BOUND, DECODE_BOUND])
    assert ranks.rates()["decode"] == 160.0
    times = merge_reports([DECODE_BOUND, DECODE_BOUND], are_ranks=False)
    assert times.rates()["decode"] == 80.0


def test_an_interval_ends_when_it_is_taken_and_the_total_goes_on():
    telemetry = LoaderTelemetry()
    telemetry.add(make_batch(decode=2.0), 1, {"decode": 1})
    assert telemetry.take().rates() == {"decode": 2.0}
    assert telemetry.take() == StageReport()
    telemetry.add(make_batch(decode=6.0), 3, {"decode": 1})
    assert telemetry.total() == StageReport(2, 8, 4, {"decode": 8.0}, {"decode": 1})


def test_the_sentence_names_the_slowest_stage_and_a_remedy():
    sentence = describe_data("native", 0.4, DECODE_BOUND)
    assert "waited 40.0% of its time for data" in sentence
    assert "decode, the slowest stage of loader native, does 80 images/s with 2 workers" in sentence
    assert "remedy: give the loader more cores (--data.num-threads)" in sentence


def test_a_run_that_did_not_wait_gets_no_remedy():
    sentence = describe_data("native", 0.01, DECODE_BOUND)
    assert "data is no bottleneck" in sentence
    assert "remedy" not in sentence


def test_a_loader_measures_every_stage_of_its_stream(dataset_path):
    config = LoaderConfig(
        path=dataset_path, loader="webdataset", global_batch_size=8, num_threads=2
    )
    loader = build_loader(config, ViewSpec.squash(16))
    batches = list(itertools.islice(loader, 3))
    report = loader.telemetry.take()
    loader.close()
    assert report.batches == 3
    assert report.images == 24
    assert set(report.seconds) == {"read", "check", "decode", "collate"}
    for stage in report.seconds:
        assert report.seconds[stage] == sum(batch.stage_s[stage] for batch in batches)
        assert report.workers[stage] == 2


@pytest.fixture(scope="module")
def dataset(dataset_path):
    with contextlib.closing(open_dataset(dataset_path)) as opened:
        yield opened


def test_what_is_asked_for_is_taken(dataset):
    config = LoaderConfig(loader="fixed")
    assert resolve_loader(config, dataset, "cuda", "webdataset") == ("fixed", "asked for")


def choose_on_cpu():
    return "native" if has_jpeg() else "webdataset"


def test_auto_takes_dali_where_it_can_decode_on_a_gpu(dataset):
    name, reason = resolve_loader(LoaderConfig(), dataset, "cuda:0")
    assert name == ("dali" if is_installed("dali") else choose_on_cpu())
    assert "GPU" in reason


def test_auto_says_what_it_takes_and_why(dataset):
    name, reason = resolve_loader(LoaderConfig(), dataset)
    assert name == choose_on_cpu()
    assert "exact pixels" in reason


def test_auto_stays_with_what_a_run_began_with(dataset):
    config = LoaderConfig()
    assert resolve_loader(config, dataset, "cuda", "webdataset")[0] == "webdataset"
    # One that this version or machine lacks is no choice any more.
    assert resolve_loader(config, dataset, "cpu", "gone")[0] == choose_on_cpu()
