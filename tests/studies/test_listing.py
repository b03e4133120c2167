"""The lists of recipes: what words choose, what stands in a row, what suits a device."""

from __future__ import annotations

import json

import pytest

from fastssl.errors import InputError
from fastssl.studies.cells import DATA_SETS, PROTOCOLS
from fastssl.studies.listing import (
    LINE,
    PEAK_TFLOPS,
    UTILISATION,
    describe_overview,
    describe_recipes,
    list_rows,
)
from fastssl.studies.registry import CELLS, recipe_names


def names_of(*words, **options):
    return [row.name for row in list_rows(words, **options)]


def test_words_choose_rows():
    assert names_of("goyal19", "resnet50", "p2000") == [
        f"goyal19_jigsaw_resnet50_p2000_{data}" for data in DATA_SETS
    ]


@pytest.mark.parametrize(
    ("words", "wanted"),
    [
        (["goyal19", "p100", "yfcc1m"], "goyal19_jigsaw_{}_p100_yfcc1m"),
        (["K2", "yfcc10m"], "goyal19_colorization_{}_k2_yfcc10m"),
    ],
)
def test_a_number_is_taken_whole_and_case_does_not_matter(words, wanted):
    assert names_of(*words) == [wanted.format(trunk) for trunk in ("alexnet", "resnet50")]


def test_a_table_of_a_study_is_a_word():
    found = names_of("kolesnikov19", "table2")
    assert "kolesnikov19_rotation_revnet50_16x" in found
    assert len(found) == 7
    data = {name.rpartition("_")[2] for name in names_of("goyal19", "table1", "jigsaw")}
    assert data == set(DATA_SETS) - {"places205"}
    assert all("places205" in name for name in names_of("goyal19", "ours"))


def test_other_forms_of_cells_come_where_their_word_is_there():
    assert not [name for name in names_of("goyal19", "yfcc1m") if name.endswith("_10epochs")]
    assert names_of("jigsaw", "alexnet", "p701", "10epochs") == [
        f"goyal19_jigsaw_alexnet_p701_yfcc{size}m_10epochs" for size in (1, 10, 50, 100)
    ]
    shown = [name for name in recipe_names() if name not in CELLS or not CELLS[name].is_variant]
    assert names_of() == shown


def test_only_published_rows_may_be_asked_for():
    found = list_rows(["goyal19"], has_published=True)
    assert found == [row for row in list_rows(["goyal19"]) if row.published]
    text = describe_recipes(["goyal19", "supervised", "alexnet"], has_published=True)
    assert text.splitlines()[:2] == [
        "goyal19_supervised_alexnet_imagenet1k",
        "    49.54 top1  vissl-linear-imagenet1k  BVLC's weights",
    ]
    assert PROTOCOLS["vissl-linear-imagenet1k"].meaning in " ".join(text.split())


@pytest.mark.parametrize("has_published", [False, True])
def test_every_list_fits_a_terminal(has_published):
    for words in (["goyal19"], ["kolesnikov19"], ["paperbatch"], ["10epochs"], []):
        if words[0:1] in (["paperbatch"], ["10epochs"]) and has_published:
            continue
        lines = describe_recipes(words, has_published).splitlines()
        assert max(map(len, lines)) <= 100
    assert max(map(len, describe_overview(4586, 50.0, "this CPU").splitlines())) <= LINE


def test_a_row_has_steps_arithmetic_and_hours_of_a_gpu():
    """2.45 EFLOP: 18.2354 GFLOP an image, 105 epochs of 1,281,167."""
    (row,) = list_rows(["goyal19", "jigsaw", "resnet50", "p2000", "imagenet1k"])
    assert row.steps == 525_479
    assert row.exaflops == pytest.approx(18.2354 * 105 * 1_281_167 / 1e9)
    wanted = row.exaflops * 1e18 / (UTILISATION * 312e12) / 3600
    assert row.gpu_hours("a100") == pytest.approx(wanted)
    assert row.gpu_hours("v100") / wanted == pytest.approx(312 / 125)
    header, line = describe_recipes(
        ["goyal19", "jigsaw", "resnet50", "p2000", "imagenet1k"]
    ).splitlines()[:2]
    assert header.split() == ["recipe", "steps", "EFLOP", "a100", "h", "published"]
    assert line.split() == [row.name, "525,479", "2.45", "7.28", "46.58", "a", "+14"]


def test_a_random_trunk_takes_nothing_and_any_data_are_not_known():
    text = describe_recipes(["goyal19", "random", "resnet50"]).splitlines()[1]
    assert text.split()[1:4] == ["0", "0", "0"]
    (row,) = list_rows(["demo"])[:1]
    assert (row.steps, row.exaflops) == (0, 0)
    assert list_rows(["demo"], num_images=6400)[0].steps == 1000


def test_everything_can_be_had_by_programs():
    rows = [row.to_json("h100") for row in list_rows(["kolesnikov19", "table2"])]
    again = json.loads(json.dumps(rows))
    row = next(r for r in again if r["recipe"] == "kolesnikov19_rotation_revnet50_16x")
    assert (row["task"], row["trunk"], row["width"], row["batch"]) == (
        "rotation",
        "revnet50",
        16,
        64,
    )
    assert row["steps"] == -(-35 * 1_231_121 // 64)
    keys = {"task", "protocol", "metric", "value", "what", "layers", "is_remembered"}
    assert keys == set(row["published"][0])
    assert row["gpu"] in PEAK_TFLOPS
    assert row["places"] == ["table1", "table2"]


def test_words_that_no_recipe_has_are_refused():
    with pytest.raises(InputError, match=r"--list \(goyal19 vgg\) finds no recipe .*table1"):
        list_rows(["goyal19", "vgg"])


def test_a_word_that_no_recipe_has_is_told_with_the_nearest():
    with pytest.raises(InputError, match="with these words; did you mean 'goyal19'"):
        list_rows(["golay19"])


def test_what_suits_comes_first_and_shortest_first():
    text = describe_overview(4586, 50.0, "this CPU")
    assert text.startswith("For 4,586 photographs on this CPU (about 50 GFLOP/s")
    suited, _, rest = text.partition("Longer than 4 h here:")
    names = [line.split()[0] for line in suited.splitlines() if line[:3].strip() and line[0] == " "]
    assert {"kolesnikov19_rotation_smoke", "demo"} <= set(names)
    longer, _, tries = rest.partition("To try the path")
    assert "  kolesnikov19_rotation  " in longer
    assert "supervised_smoke" in tries


def test_what_learns_a_target_is_offered_where_the_dataset_has_it():
    suited = {
        targets: describe_overview(4586, 50.0, "it", targets=targets).partition("Longer")[0]
        for targets in ((), ("pose",))
    }
    assert "newell20_pose_smoke" not in suited[()]
    assert "newell20_pose_smoke" in suited[("pose",)]
    assert "newell20_depth_smoke" not in suited[("pose",)]


def test_a_row_has_one_duration():
    assert "of one core" not in describe_overview(4586, 50.0, "it")


def test_the_overview_names_every_recipe_once():
    text = describe_overview(100, 50.0, "this CPU")
    words = text.replace(",", " ").replace(".", " ").split()
    for name in recipe_names(has_cells=False):
        assert words.count(name) == 1, name
    assert "Too few photographs for a batch of:" in text


def test_a_faster_device_suits_more():
    cpu, gpu = (describe_overview(100_000, s, "it").partition("Longer")[0] for s in (50, 4e5))
    assert "  goyal19_jigsaw_alexnet  " not in cpu
    assert "  goyal19_jigsaw_alexnet  " in gpu
