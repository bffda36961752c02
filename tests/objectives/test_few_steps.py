"""Distillation and consistency: the losses ask for what the papers derive, and stages happen where they should."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from sfumato import conditioning, draws, schedules, weightings
from sfumato.core import target as targets
from sfumato.core.denoiser import Preconditioned, Prediction, unit_variance
from sfumato.core.exact import Gaussian
from sfumato.core.level import Level
from sfumato.core.noise import normal
from sfumato.objectives.consistency import consistency, nearer
from sfumato.objectives.distill import distill, two_steps
from sfumato.recipes.digits import edm_digits
from sfumato.recipes.digits_families import distill_digits, ect_digits, v_digits
from sfumato.runs.check import check
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import RecipeError, Shape
from sfumato.samplers.ddim import ddim
from sfumato.training.loop import train
from sfumato.training.rates import stages

F64 = torch.float64
DATA = Gaussian(torch.tensor([0.3, -0.2], dtype=F64), torch.tensor([1.0, 0.04], dtype=F64))


@pytest.mark.parametrize("schedule", [schedules.trig(), schedules.flow(), schedules.vp()], ids=["trig", "flow", "vp"])
def test_one_student_step_ends_where_two_teacher_steps_end(schedule) -> None:
    t, middle, s = (schedule(torch.tensor(time, dtype=F64)) for time in (0.8, 0.7, 0.6))
    x = normal(range(5), (2,), purpose="x", dtype=F64)
    goal = two_steps(DATA, x, t, middle, s)
    *_, twice = ddim(DATA, x, Level.stack([t, middle, s]), noise=lambda step: x)
    *_, once = ddim(lambda x, level, label=None: Prediction(goal), x, Level.stack([t, s]), noise=lambda step: x)
    torch.testing.assert_close(once.x, twice.x, rtol=1e-12, atol=1e-12)


class Affine(nn.Module):
    """A network whose answer is a learned number, whatever it sees."""

    def __init__(self, value: float = 0.0) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(value))

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return self.value.expand_as(x)


def model(value: float) -> Preconditioned:
    return Preconditioned(Affine(value), targets.x0(), c_noise=conditioning.angle())


def test_a_constant_teacher_teaches_its_constant_and_each_stage_begins_with_a_copy() -> None:
    student, x0 = model(0.25), torch.zeros(4, 1, 2, 2)
    loss = distill(model(9.0), schedules.trig(), weightings.x0(), seed=0, batch=4, images=16, steps=8, halvings=2)
    first = loss(student, x0, None, torch.arange(4))
    assert float(first.each.detach().abs().max()) < 1e-10  # the student is its own teacher
    with torch.no_grad():
        student.network.value.fill_(0.75)  # type: ignore[union-attr, operator]
    assert loss(student, x0, None, torch.arange(4, 8)).each.tolist() == pytest.approx([0.25] * 4, rel=1e-4)
    assert float(loss(student, x0, None, torch.arange(8, 12)).each.detach().abs().max()) < 1e-10  # the second stage
    assert [loss.steps_at(p) for p in (0, 7, 8, 15, 99)] == [(0, 4), (0, 4), (1, 2), (1, 2), (1, 2)]


def test_times_are_those_of_the_student() -> None:
    schedule = schedules.trig()
    loss = distill(model(0.0), schedule, weightings.x0(), seed=0, batch=64, images=64, steps=8, halvings=1)
    level = loss(model(0.0), torch.zeros(64, 1, 2, 2), None, torch.arange(64)).level
    expected = schedule(torch.arange(1, 5, dtype=F64) / 4)
    assert torch.unique(level.sigma).tolist() == pytest.approx(expected.sigma.tolist())


def test_steps_that_cannot_be_halved_are_refused() -> None:
    with pytest.raises(ValueError, match="nearest is steps=16"):
        distill(model(0.0), schedules.trig(), weightings.x0(), 0, 4, 16, steps=15, halvings=3)


def test_the_second_level_comes_nearer_and_begins_at_clean() -> None:
    t = torch.tensor([0.01, 0.5, 3.0, 80.0], dtype=F64)
    gaps = torch.stack([1 - nearer(t, k) / t for k in range(8)])
    assert bool((gaps[1:] <= gaps[:-1]).all()) and float(gaps[-1].max()) < 0.04
    assert gaps[0].tolist()[:2] == [1.0, 1.0]  # r = 0: the loss of denoising
    k, last = 3, t[3]
    assert float(nearer(last, k)) == pytest.approx(float(last) * (1 - 2.0**-4))  # no correction where noise is strong


def test_a_consistent_model_has_no_loss_and_a_wrong_one_its_distance() -> None:
    point = 0.5

    def loss_of(value: float) -> Tensor:
        made = consistency(draws.lognormal(), weightings.x0(), 0, 4, 4, stages=1)
        x0 = torch.full((4, 1, 2, 2), point)
        return made(model(value), x0, None, torch.arange(4)).each.detach()

    assert float(loss_of(point).max()) < 1e-6  # D = x0 everywhere, x0 being one point
    assert loss_of(0.75).tolist() == pytest.approx(  # 4 pixels off by 1/4, where r = 0; consistent where r > 0
        [0.5 if v < 1e-12 else 0.0 for v in nearer(_nsr(4), 0).tolist()], abs=1e-5
    )


def _nsr(count: int) -> Tensor:
    from sfumato.core import noise

    u = noise.uniform(torch.arange(count), seed=0, purpose="level")
    return draws.lognormal()((torch.arange(count) + u) / count).nsr


def test_both_sides_meet_the_same_dropout() -> None:
    class Dropped(Affine):
        def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
            return nn.functional.dropout(torch.ones_like(x), 0.5, self.training) * self.value

    denoiser = Preconditioned(Dropped(1.0), targets.x0(), c_noise=conditioning.angle(), c_in=unit_variance(0.5))
    far = draws.lognormal(mean=4.0, std=0.1)  # strong noise: r > 0
    made = consistency(far, weightings.x0(), 0, 4, 4, stages=1)
    each = made(denoiser.train(), torch.zeros(4, 1, 8, 8), None, torch.arange(4)).each
    assert float(each.detach().max()) < 1e-6


def test_a_rate_falls_to_zero_in_every_stage() -> None:
    rate = stages(count=4)
    assert [rate(0, spent) for spent in (0.0, 0.125, 0.25, 0.375, 0.5)] == [1.0, 0.5, 1.0, 0.5, 1.0]
    with pytest.raises(ValueError, match="at least 1"):
        stages(0)


def test_what_a_few_step_recipe_lacks_is_said_before_any_work(tmp_path) -> None:
    digits = {"shape": Shape(1, 8, 8, tuple("0123456789")), "sigma_data": 0.5}
    with pytest.raises(RecipeError, match="train.start names none"):
        check(plan(override(replace(distill_digits(), **digits), ["train.start=none"])))
    with pytest.raises(RecipeError, match="leaves it open"):
        check(plan(override(replace(ect_digits(), **digits), ["train.minutes=1"])))
    with pytest.raises(RecipeError, match="is not a run"):
        train(override(ect_digits(), ["train.start=nowhere"]), tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_training_begins_from_another_run_and_resumes_without_it(tmp_path) -> None:
    small = ["network.width=8", "network.head_width=8", "train.batch=32", "train.sheet_every=100000", "train.images=64"]
    small += ["train.precision=fp32", "train.optimizer=adam", "train.optimizer.lr=0.001"]
    first = train(override(edm_digits(), [*small, "sample.grid.steps=2"]), tmp_path / "first", quiet=True, device="cpu")
    began = override(ect_digits(), [*small, f"train.start={first.path}@raw", "train.optimizer.lr=0.0"])
    second = train(began, tmp_path / "second", quiet=True, device="cpu")
    raw, averaged = (second.network(use).state_dict() for use in ("raw", None))
    for name, value in first.network("raw").state_dict().items():
        assert torch.equal(raw[name], value)
        torch.testing.assert_close(averaged[name], value)  # averages begin there too
    (first.path / "recipe.json").unlink()
    longer = override(began, ["train.images=96"])
    assert train(longer, second.path, quiet=True, device="cpu", allow=("train.images",)).checkpoint.state["seen"] == 96


def test_weights_that_mean_something_else_are_refused(tmp_path) -> None:
    small = ["network.width=8", "network.head_width=8", "train.batch=32", "train.sheet_every=100000", "train.images=32"]
    small += ["train.precision=fp32", "train.optimizer=adam"]
    first = train(override(edm_digits(), small), tmp_path / "first", quiet=True, device="cpu")
    start = f"train.start={first.path}"
    for change, message in (("target=v", "target.name: edm -> v"), ("network.width=16", "has other weights")):
        with pytest.raises(RecipeError, match=message):
            train(override(edm_digits(), [*small, start, change]), tmp_path / "second", quiet=True, device="cpu")
    assert not (tmp_path / "second").exists()


def test_a_teacher_of_other_images_or_classes_is_refused(tmp_path) -> None:
    short = [
        "train.images=32",
        "train.batch=16",
        "train.precision=fp32",
        "network.width=16",
        "train.sheet_every=1000000",
    ]
    teacher = train(override(v_digits(), [*short, "data.first=32"]), tmp_path / "teacher", quiet=True, device="cpu")
    student = override(distill_digits(), [*short, "data.first=32", f"train.start={teacher.path}"])
    for change, words in (
        ("data.classes=0,1,2", "8x8 images of 10 classes .*8x8 images of 3 classes"),
        ("data.pad=16", "8x8 images .*16x16 images"),
        ("data.name=toy:mixture", "data.name=digits.*data.name=toy:mixture"),
    ):
        with pytest.raises(RecipeError, match=f"on its teacher's images and classes: .*{words}"):
            train(override(student, [change]), tmp_path / "student", quiet=True, device="cpu")
    assert not (tmp_path / "student").exists()
