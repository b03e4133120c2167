"""What ``fastssl plan`` reckons, against numbers worked out by hand; where its rates are from."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest

from fastssl.commands.plan import main
from fastssl.commands.plan_rates import Rates, spell_views
from fastssl.commands.planning import (
    EncodingRates,
    Job,
    choose,
    estimate,
    explain_conversion,
    explain_training,
)
from fastssl.errors import InputError
from fastssl.studies import build_recipe
from tests.conftest import save_photograph

JOB = Job(images=1_000_000, source_kb=100.0, epochs=10.0, gpus=4, gpu_img_per_s=2000.0, cores=10)
KEEP = EncodingRates(stored_kb=101.0, convert_img_per_s=400.0, load_img_per_s=500.0)
RESIZED = EncodingRates(stored_kb=30.0, convert_img_per_s=200.0, load_img_per_s=2000.0)
RECIPE = "goyal19_jigsaw_yfcc"


def test_hours_shards_and_bytes_follow_from_the_rates():
    found = estimate(JOB, "keep", KEEP)
    # 10 cores convert 4000 and load 5000 images/s; the GPUs would take 8000.
    assert found.conversion.seconds == 1_000_000 / 4000
    assert found.training.seconds == 10_000_000 / 5000
    assert (found.samples_per_shard, found.num_shards) == (8192, 123)
    assert found.disk_bytes == 1_000_000 * (101_000 + 32) + 64
    assert (found.feeding_cores, found.feeding_mb_per_s) == (16, 808.0)
    assert found.fetching_mb_per_s == 400.0


@pytest.mark.parametrize(
    ("change", "bottleneck", "said"),
    [
        ({}, "cores", "cores: each more converts 400 images/s"),
        ({"network_mb_per_s": 600.0}, "cores", "cores: 15 would do as much as the rest, 6,000"),
        ({"network_mb_per_s": 200.0}, "network", "network: 400 MB/s from the source"),
        ({"storage_mb_per_s": 101.0}, "storage", "storage: 404 MB/s to the shards"),
    ],
)
def test_what_limits_a_conversion_is_named_with_what_removes_it(change, bottleneck, said):
    job = replace(JOB, **change)
    found = estimate(job, "keep", KEEP)
    assert found.conversion.bottleneck == bottleneck
    assert explain_conversion(job, found).startswith(said)


@pytest.mark.parametrize(
    ("change", "bottleneck", "said"),
    [
        ({"cores": 32}, "GPUs", "GPUs, as it should be: the rest would feed 2.0 times as many"),
        ({}, "cores", "cores: 16 cores would feed the GPUs, or --encode resized, which takes 4"),
        (
            {"cores": 32, "storage_mb_per_s": 101.0},
            "storage",
            "storage: 808 MB/s from the shards would feed the GPUs, or --encode resized, which "
            "takes 240",
        ),
    ],
)
def test_what_limits_a_training_is_named_with_what_removes_it(change, bottleneck, said):
    job = replace(JOB, **change)
    both = [estimate(job, "keep", KEEP), estimate(job, "resized", RESIZED)]
    assert both[0].training.bottleneck == bottleneck
    assert explain_training(both[0], both) == said


def test_the_plainest_encoding_is_taken_that_costs_few_hours_more():
    def pick(disk_tb=None, **change):
        job = replace(JOB, **change)
        both = [estimate(job, "resized", RESIZED), estimate(job, "keep", KEEP)]
        return choose(both, disk_tb).encoding

    assert pick() == "resized"  # 500 + 1250 s against 250 + 2000
    assert pick(cores=32) == "keep"  # the GPUs are fed by either
    assert pick(cores=32, disk_tb=0.05) == "resized"
    with pytest.raises(InputError, match=r"--disk-tb \(0\.01\) is too .* resized, takes 0\.03 TB"):
        pick(disk_tb=0.01)


@pytest.fixture(scope="module")
def rates():
    views = spell_views(build_recipe(RECIPE))
    encodings = {"keep": KEEP, "resized": RESIZED}
    about = ("2026-11-30", "a processor", 2, "photos", 256, 100.0, RECIPE, views)
    return Rates(*about, device="a GPU", gflops=50_000.0, encodings=encodings)


def test_every_figure_says_where_it_is_from(tmp_path, rates, capsys):
    rates.save(tmp_path / "rates.json")
    given = f"{tmp_path}/rates.json --images 1000000 --gpus 4 --cores 10 --img-per-s 2000"
    main([*given.split(), "--json", str(tmp_path / "plan.json")])
    said = capsys.readouterr().out
    assert f"100 kB an image of the source (measured, {tmp_path}/rates.json)" in said
    assert f"10 epochs (recipe {RECIPE})" in said
    assert "2,000 images/s a GPU (given)" in said
    assert "? MB/s from the source (not given: no limit here)" in said
    assert "take --encode resized: 123 shards of 8,192 images" in said
    found = json.loads((tmp_path / "plan.json").read_text())
    assert found["chosen"] == "resized"
    assert found["inputs"]["gpus"] == {"value": 4, "origin": "given"}
    assert found["rows"][0]["training"]["seconds"] == 2000.0


def test_without_a_rate_the_arithmetic_of_the_recipe_counts(tmp_path, rates, capsys):
    rates.save(tmp_path / "rates.json")
    main([str(tmp_path / "rates.json"), "--images", "1000"])
    assert f"(arithmetic of {RECIPE} at the speed of a GPU, measured" in capsys.readouterr().out


def test_rates_of_a_cpu_are_told_as_such_where_they_stand_for_a_gpus(tmp_path, rates):
    of_cpu = dataclasses.replace(rates, device="this CPU (2 threads of 2)")
    of_cpu.save(tmp_path / "rates.json")
    with pytest.warns(UserWarning, match=r"measured on a CPU.* --img-per-s"):
        main([str(tmp_path / "rates.json"), "--images", "1000"])


def test_larger_images_take_more_room_unless_they_are_resized(tmp_path, rates, capsys):
    rates.save(tmp_path / "rates.json")
    given = f"{tmp_path}/rates.json --images 1000 --mean-kb 200 --json {tmp_path}/plan.json"
    with pytest.warns(UserWarning, match=r"--mean-kb \(200\) is far from the 100 kB"):
        main(given.split())
    keep, resized = json.loads((tmp_path / "plan.json").read_text())["rows"]
    assert keep["rates"]["stored_kb"] == 202.0
    assert resized["rates"]["stored_kb"] == 30.0
    assert "200 kB an image of the source (given)" in capsys.readouterr().out


def test_rates_are_measured_by_converting_and_loading(tmp_path, capsys):
    pytest.importorskip("fastssl._C", reason="the native loader needs the extension")
    for number in range(4):
        save_photograph(tmp_path / "photos" / f"{number}.jpg", number)
    path = tmp_path / "rates.json"
    given = f"{path} --measure {tmp_path}/photos --encodings resized --seconds 0.05"
    main([*given.split(), "--recipe", "goyal19_jigsaw_smoke"])
    found = Rates.load(path)
    assert found.photographs == 4
    assert found.source_kb == pytest.approx(
        sum(one.stat().st_size for one in (tmp_path / "photos").iterdir()) / 4e3
    )
    assert [*found.encodings] == ["resized"]
    one = found.encodings["resized"]
    assert min(one.stored_kb, one.convert_img_per_s, one.load_img_per_s) > 0
    assert "resized: stored_kb" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["none.json", "--images", "9"],
            r"RATES \(none\.json\) is not there; measure: fastssl plan",
        ),
        (["none.json"], r"--images \(0\) must say how many the job has"),
        (["x/none.json", "--measure", "."], r"RATES \(x/none\.json\) lies in no folder"),
        (["odd.json", "--images", "9"], r"RATES \(odd\.json\) holds no rates"),
        (["odd.json", "--encodings", "tield"], r"did you mean 'tiled'"),
        (
            ["rates.json", "--images", "9", "--recipe", "goyal19_colorization"],
            r"views of goyal19_jigsaw_yfcc, those of goyal19_colorization are others: measure",
        ),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path, rates, monkeypatch, words, said):
    monkeypatch.chdir(tmp_path)
    rates.save(tmp_path / "rates.json")
    (tmp_path / "odd.json").write_text('{"encodings": 3}')
    with pytest.raises(InputError, match=said):
        main(words)
