"""The learning rate is a function of the samples seen."""

import pytest

from fastssl.config import OptimConfig, ScheduleConfig
from fastssl.errors import InputError
from fastssl.training.schedule import build_schedule


def schedule(batch=256, num_samples=1000, optim=None, **settings):
    return build_schedule(
        ScheduleConfig(**settings), optim or OptimConfig(lr=0.1), num_samples, batch
    )


def test_peak_grows_linearly_with_the_batch():
    assert schedule(batch=1024).peak_lr == pytest.approx(0.4)
    assert schedule(batch=64).peak_lr == pytest.approx(0.025)


def test_no_scaling_when_it_is_switched_off():
    assert schedule(batch=1024, optim=OptimConfig(lr=0.1, lr_batch_size=0)).peak_lr == 0.1


def test_warmup_rises_linearly_from_its_start():
    course = schedule(warmup_epochs=5, warmup_start=0.25)
    assert course.lr_at(0) == pytest.approx(0.025)
    assert course.lr_at(2500) == pytest.approx((0.025 + 0.1) / 2)
    assert course.lr_at(5000) == pytest.approx(0.1)


def test_steps_fall_at_their_milestones():
    course = schedule(warmup_epochs=0, milestones=(2.0, 3.0), epochs=4)
    rates = [course.lr_at(samples) for samples in (0, 1999, 2000, 2999, 3000)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001])


def test_cosine_ends_at_zero():
    course = schedule(kind="cosine", warmup_epochs=0, epochs=2)
    assert course.lr_at(1000) == pytest.approx(0.05)
    assert course.lr_at(2000) == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    ("epochs", "num_samples", "batch", "steps"),
    [
        *[(3, 10, 4, 8), (1, 12, 4, 3), (0.5, 10, 4, 2), (105, 1_281_167, 256, 525_479)],
        *[(0.5, 5, 1, 3), (0.01, 10, 1, 1), (0.1, 30, 1, 3)],
    ],
)
def test_a_run_takes_as_many_steps_as_its_samples_need(epochs, num_samples, batch, steps):
    assert schedule(batch, num_samples, epochs=epochs).total_steps == steps


def test_rates_do_not_depend_on_the_batch_but_for_the_peak():
    small, large = schedule(64), schedule(256)
    for samples in range(0, 105_000, 777):
        assert small.lr_at(samples) * 4 == pytest.approx(large.lr_at(samples))


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_numbers_must_be_finite(value):
    with pytest.raises(InputError, match=r"must lie in 0 \.\. "):
        ScheduleConfig(epochs=value)
    with pytest.raises(InputError, match=r"must lie in 0 \.\. "):
        OptimConfig(lr=value)


def test_milestones_must_rise():
    with pytest.raises(InputError, match="must rise"):
        ScheduleConfig(milestones=(3.0, 2.0))


def test_linear_rises_to_the_peak_and_falls_to_its_share():
    """Newell and Deng 2020: zero to the peak over five rounds, then straight to the end."""
    course = schedule(
        kind="linear", warmup_epochs=5, warmup_start=0.0, final_share=0.01, epochs=105
    )
    rates = [course.lr_at(1000 * epoch) for epoch in (0, 2.5, 5, 55, 105)]
    assert rates == pytest.approx([0.0, 0.05, 0.1, 0.1 * (0.01 + 0.99 / 2), 0.001])


def test_cosine_can_end_above_zero():
    course = schedule(kind="cosine", warmup_epochs=0, epochs=2, final_share=0.1)
    assert course.lr_at(2000) == pytest.approx(0.01)


def test_a_power_of_what_is_left_multiplies_the_rate():
    settings = {"kind": "linear", "warmup_epochs": 0, "epochs": 2, "final_share": 0.5}
    plain, steep, late = (schedule(**settings, exponent=e) for e in (0.0, 2.0, -0.5))
    for samples in (0, 500, 1500):
        left = 1 - samples / 2000
        assert steep.lr_at(samples) == pytest.approx(plain.lr_at(samples) * left**2)
        assert late.lr_at(samples) == pytest.approx(plain.lr_at(samples) * left**-0.5)
    # At its very end what is left is the last step's own share.
    assert late.lr_at(2000) == pytest.approx(plain.lr_at(2000) * (256 / 2000) ** -0.5)
