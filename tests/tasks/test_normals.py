"""Surface normals against plain implementations: angles, clusters, mirrors, what is not known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from fastssl.batch import Batch
from fastssl.errors import InputError
from fastssl.models import build_trunk
from fastssl.runs.metrics import write_table
from fastssl.tasks import Normals, NormalsConfig, build_task
from fastssl.tasks.downstream import NOT_COUNTED
from fastssl.tasks.normal_clusters import (
    NormalClusters,
    cluster_normals,
    read_clusters,
    read_normals,
    sample_normals,
    write_clusters,
)
from fastssl.tasks.normals import (
    BIN_DEGREES,
    check_normals,
    count_angles,
    summarize_angles,
    take_middles,
)

SIDE, K = 32, 6
H, W = 12, 20


def draw_units(rng, *shape):
    vectors = rng.normal(size=(*shape, 3))
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def encode(units):
    return torch.from_numpy(np.round((units + 1) * 127.5).astype(np.uint8))


@pytest.fixture
def build(tmp_path):
    """Return a task on a small trunk, whose clusters are drawn."""
    rng = np.random.default_rng(0)
    clusters = NormalClusters(*(draw_units(rng, *s).astype(np.float32) for s in ((K,), ())))
    write_clusters(tmp_path / "clusters.json", clusters)

    def make(**options):
        torch.manual_seed(1)
        file = str(tmp_path / "clusters.json")
        config = NormalsConfig(size=SIDE, num_clusters=K, clusters_file=file, **options)
        return build_task(config, build_trunk("resnet9", 1)), clusters

    return make


def make_batch(normals):
    rng, num = np.random.default_rng(3), len(normals)
    images = torch.from_numpy(rng.integers(0, 256, (num, 1, SIDE, SIDE, 3), np.uint8))
    ids, zeros = torch.arange(num), torch.zeros(num, dtype=torch.int64)
    return Batch(images, ids, zeros, None, {"normals": normals})


def enlarge(values_gg3, size):
    """Bilinear, pixels as areas, borders held."""
    for axis, length in enumerate(size):
        grid = values_gg3.shape[axis]
        places = np.clip((np.arange(length) + 0.5) * grid / length - 0.5, 0, grid - 1)
        low = np.floor(places).astype(int)
        high = np.minimum(low + 1, grid - 1)
        share = (places - low).reshape([-1 if a == axis else 1 for a in range(3)])
        values_gg3 = (1 - share) * values_gg3.take(low, axis) + share * values_gg3.take(high, axis)
    return values_gg3


def test_angles_are_those_of_a_plain_implementation(build):
    task, clusters = build()
    rng = np.random.default_rng(1)
    logits = rng.normal(scale=2, size=(3, K, 4, 4)).astype(np.float32)
    target = encode(draw_units(rng, 3, H, W))
    target[0, :5] = 0
    angles, guessed = [], []
    for answer, truth in zip(logits, target.numpy(), strict=True):
        shares = np.exp(answer) / np.exp(answer).sum(0)
        said = enlarge(np.tensordot(shares, clusters.centres, (0, 0)), (H, W))
        known = truth.any(-1)
        units = truth[known] / 127.5 - 1
        units /= np.linalg.norm(units, axis=-1, keepdims=True)
        said = said[known] / np.linalg.norm(said[known], axis=-1, keepdims=True)
        angles.append(np.degrees(np.arccos(np.clip((said * units).sum(-1), -1, 1))))
        guessed.append(np.degrees(np.arccos(np.clip(units @ clusters.mean, -1, 1))))
    angles, guessed = np.concatenate(angles), np.concatenate(guessed)
    batch = make_batch(target)
    score = task.summarize(task.count(torch.from_numpy(logits), batch))
    details = score.details
    assert details["num_pixels"] == len(angles) == 3 * H * W - 5 * W
    # The median is exact to a bin, and to what float32 makes of interpolated vectors.
    medians = [np.quantile(a, 0.5, method="inverted_cdf") for a in (angles, guessed)]
    found = [score.value, details["chance"]]
    assert found == pytest.approx(medians, abs=2 * BIN_DEGREES)
    assert details["mean"] == pytest.approx(angles.mean(), abs=1e-3)
    assert details["rmse"] == pytest.approx(np.sqrt((angles**2).mean()), abs=1e-3)
    for bound in (11.25, 22.5, 30.0):
        share = details[f"within_{bound:g}"]
        assert share == pytest.approx((angles < bound).mean(), abs=2 / len(angles))
    parts = [
        task.count(torch.from_numpy(logits[i : i + 1]), batch.rows(i, i + 1)) for i in range(3)
    ]
    assert task.summarize(task.join(parts)).value == score.value


def test_small_angles_and_opposites_are_exact():
    degrees = torch.tensor([0.0, 0.005, 0.5, 90.0, 180.0], dtype=torch.float64)
    truth = torch.tensor([1.0, 0, 0], dtype=torch.float64).expand(5, 3)
    radians = torch.deg2rad(degrees)
    found = torch.stack([radians.cos(), radians.sin(), torch.zeros(5)], 1)
    counts = count_angles(found, truth)
    assert counts[:-2].sum() == 5
    assert counts[-2].item() == pytest.approx(degrees.sum().item(), abs=1e-9)
    assert counts[0] == 2
    assert counts[-3] == 1
    assert summarize_angles(torch.zeros_like(counts))["num_pixels"] == 0


def test_what_is_not_known_does_not_count(build):
    task, _ = build(flip_probability=0.0)
    units = draw_units(np.random.default_rng(2), 2, H, W)
    whole = make_batch(encode(units))
    holes = make_batch(encode(units))
    holes.targets["normals"][0] = 0  # black
    holes.targets["normals"][1, : H // 2] = torch.tensor([128, 127, 128], dtype=torch.uint8)
    task.eval()
    inputs, torn = (task.prepare(batch, 0, torch.float32) for batch in (whole, holes))
    is_torn = torn["truth"] == NOT_COUNTED
    assert is_torn[0].all()
    assert is_torn[1, : task.map.grid // 2].all()
    assert not is_torn[1, task.map.grid // 2 :].any()
    logits = task.answer(inputs["images"]).movedim(1, -1)
    wanted = torch.nn.functional.cross_entropy(logits[~is_torn], inputs["truth"][~is_torn])
    assert task(torn)["loss"].item() == pytest.approx(wanted.item(), rel=1e-5)
    answers = torch.zeros(2, K, 4, 4)
    assert task.summarize(task.count(answers, holes)).details["num_pixels"] == H // 2 * W


def test_vectors_themselves_are_taken_too():
    units = draw_units(np.random.default_rng(4), 5).astype(np.float32)
    rows = torch.from_numpy(np.concatenate([units, np.zeros((1, 3)), np.full((1, 3), np.nan)]))
    normals, is_known = read_normals(rows.float())
    assert is_known.tolist() == [True] * 5 + [False] * 2
    np.testing.assert_allclose(normals[:5], units, atol=1e-6)
    assert not normals[5:].any()


def test_a_mirrored_photograph_faces_the_other_way(build):
    units = draw_units(np.random.default_rng(5), 2, H, W)
    flipped, _ = build(flip_probability=1.0)
    plain, _ = build(flip_probability=0.0)
    grid = plain.map.grid
    assert W % (2 * grid) != 0  # middles of places lie on other pixels when counted from behind
    found = flipped.prepare(make_batch(encode(units)), 0, torch.float32)["truth"]
    middles = take_middles(torch.from_numpy(units), grid).numpy()[:, :, ::-1] * [-1, 1, 1]
    wanted = plain.read_target(encode(middles))
    assert torch.equal(found, wanted)
    images = [t.prepare(make_batch(encode(units)), 0, torch.float32) for t in (flipped, plain)]
    assert torch.equal(images[0]["images"], images[1]["images"].flip(3))


def test_places_take_the_pixel_in_their_middle():
    target = torch.arange(6 * 9).view(1, 6, 9)
    assert take_middles(target, 3)[0].tolist() == [[10, 13, 16], [28, 31, 34], [46, 49, 52]]


# ------------------------------------------------------------------ clusters


def draw_bundles(rng, num):
    centres = draw_units(rng, num)
    spread = centres.repeat(200, 0) + rng.normal(scale=0.02, size=(num * 200, 3))
    return centres, spread / np.linalg.norm(spread, axis=1, keepdims=True)


def test_clusters_lie_where_normals_do_and_are_the_same_each_time():
    rng = np.random.default_rng(6)
    centres, normals = draw_bundles(rng, 5)
    found = cluster_normals(normals, 5, seed=3)
    cosines = found.centres @ centres.T
    assert sorted(cosines.argmax(1)) == list(range(5))
    assert (cosines.max(1) > 0.999).all()
    np.testing.assert_allclose(np.linalg.norm(found.centres, axis=1), 1, atol=1e-6)
    again = cluster_normals(normals.copy(), 5, seed=3)
    np.testing.assert_array_equal(found.centres, again.centres)
    mean = normals.sum(0) / np.linalg.norm(normals.sum(0))
    np.testing.assert_allclose(found.mean, mean, atol=1e-6)


def test_more_clusters_than_normals_are_refused():
    normals = np.eye(3).repeat(50, 0)
    assert len(cluster_normals(normals, 3, 0).centres) == 3
    with pytest.raises(InputError, match=r"num_clusters \(4\) must not exceed the 3 different"):
        cluster_normals(normals, 4, 0)


def test_normals_are_drawn_from_the_samples_that_are_learnt_from():
    rows = np.zeros((10, H, W, 3), np.uint8)  # nothing known, but of two samples
    rows[3], rows[7] = (255, 128, 128), (128, 255, 128)
    dataset = SimpleNamespace(targets={"normals": rows})
    found = sample_normals(dataset, "normals", np.array([1, 3, 7]), 0)
    assert set(found.argmax(1)) == {0, 1}
    assert set(sample_normals(dataset, "normals", np.array([2, 7]), 0).argmax(1)) == {1}
    np.testing.assert_array_equal(
        found, sample_normals(dataset, "normals", np.array([7, 3, 1])[::-1], 0)
    )
    other = sample_normals(dataset, "normals", np.array([1, 3, 7]), 1)
    assert len(other) == len(found)


def test_clusters_are_read_to_the_last_bit_and_no_others(build, tmp_path):
    _, clusters = build()
    file = tmp_path / "clusters.json"
    np.testing.assert_array_equal(read_clusters(file, K).centres, clusters.centres)
    with pytest.raises(InputError, match=rf"wanted unit vectors \(4, 3\) .* --num-clusters {K}"):
        read_clusters(file, 4)
    (tmp_path / "other.json").write_text("[]")
    with pytest.raises(InputError, match="holds no clusters"):
        read_clusters(tmp_path / "other.json", 4)
    with pytest.raises(InputError, match=r"clusters_file \(none given\)"):
        build_task(NormalsConfig(size=SIDE), build_trunk("resnet9", 1))


@pytest.mark.parametrize(
    ("rows", "match"),
    [
        (np.zeros((2, H, W), np.uint8), r"is uint8 of shape \(12, 20\) an image, wanted uint8"),
        (np.zeros((2, H, W, 4), np.uint8), r"of shape \(12, 20, 4\)"),
        (np.zeros((2, H, W, 3), np.int32), "is int32 of shape"),
        (np.zeros((2, H, W + 2, 3), np.uint8), "sample 1 .* has 20 x 12 px and .* 22 x 12"),
    ],
)
def test_what_are_no_normals_is_refused(rows, match):
    index = np.array([(22, 12), (20, 12)], [("width", "<u2"), ("height", "<u2")])
    dataset = SimpleNamespace(targets={"normals": rows}, index=index, path="set")
    with pytest.raises(InputError, match=match):
        check_normals(dataset, 2)


def test_metrics_stand_in_the_docs():
    docs = Path(__file__).parents[2] / "docs/metrics.md"
    assert f"### normals\n\n{write_table(Normals.metrics)}\n" in docs.read_text()


def test_pictures_show_photograph_truth_and_answer(build):
    task, _ = build()
    normals = encode(draw_units(np.random.default_rng(8), 3, H, W))
    normals[0] = 0
    pictures = task.draw_pictures(make_batch(normals), 0, 2)
    assert len(pictures) == 2
    height, width, _ = pictures[0].pixels.shape
    assert width == 3 * height
    assert (pictures[0].pixels[8:-8, height + 8 : 2 * height - 8] == 0).all()  # nothing known
    assert "median angle" in pictures[1].words
