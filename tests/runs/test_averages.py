"""Averages made after training equal those that were tracked, and their names work wherever weights are chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from sfumato.core.find import UnknownNameError
from sfumato.recipes.digits import edm_digits
from sfumato.runs import averages, checkpoint
from sfumato.runs.averages import Profile, fit, inner
from sfumato.runs.check import check
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import RecipeError, Shape
from sfumato.runs.run import Run
from sfumato.training.ema import power
from sfumato.training.loop import train


def test_inner_products_are_integrals():
    """Against the midpoint rule on the densities themselves."""
    tau = (np.arange(200_000) + 0.5) / 200_000
    profiles = [Profile(0.05, 400), Profile(0.10, 1000), Profile(0.20, 700)]

    def density(p):
        gamma, t = averages.gamma_of(p.width), p.seen / 1000
        return np.where(tau <= t, (gamma + 1) * (tau / t) ** gamma / t, 0.0)

    expected = [[float((density(a) * density(b)).mean()) for b in profiles] for a in profiles]
    assert np.allclose(inner(profiles, profiles, 1000), expected, rtol=1e-3)


@pytest.mark.parametrize("width", [0.04, 0.075, 0.13, 0.20])
def test_a_width_made_afterwards_is_the_one_that_was_tracked(width):
    """A random walk's averages: 24 snapshots of widths 0.05 and 0.10 give the direct average within the fit's error."""
    batch, steps, kept = 32, 2400, {}
    walk = torch.randn(steps, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64).cumsum(0)
    tracked = {w: torch.zeros(50, dtype=torch.float64) for w in (0.05, 0.10, width)}
    for k in range(1, steps + 1):
        for w, average in tracked.items():
            average.lerp_(walk[k - 1], 1 - power(w)(k * batch, batch))
        if k % 100 == 0:
            kept |= {Profile(w, k * batch): tracked[w].clone() for w in (0.05, 0.10)}
    weights, error = fit(list(kept), Profile(width, steps * batch))
    made = sum(float(w) * value for w, value in zip(weights, kept.values()))
    assert float(weights.sum()) == pytest.approx(1, abs=1e-9)
    assert error < 0.1
    distance = float((made - tracked[width]).norm() / (walk[-1] - tracked[width]).norm())
    assert distance < max(0.02, 1.5 * error)


def test_a_run_makes_any_width_and_uses_it(tiny, tmp_path):
    """Snapshots of 0.05 and 0.10 give the 0.07 that the same run tracked; `use` takes it; what cannot be is refused."""
    fields = ["ema.power=0.05,0.07,0.10", "ema.use=power-0.07", "ema.snapshots=10", "train.rate=constant"]
    run = train(override(tiny, fields), tmp_path, quiet=True)
    steps = checkpoint.steps(tmp_path / "snapshots")
    assert steps == list(range(2, 21, 2))
    for step in steps:  # forget that 0.07 was tracked
        saved = checkpoint.load(tmp_path / "snapshots" / f"step-{step}")
        kept = {k: v for k, v in saved.tensors.items() if k != "ema-power-0.07"}
        state = {**saved.state, "averages": ["0.05", "0.10"]}
        checkpoint.save(tmp_path / "snapshots", step, kept, state, keep=99)
    made = averages.reconstruct(tmp_path, 0.07)
    tracked, raw = run.checkpoint.tensors["ema-power-0.07"], run.checkpoint.tensors["network"]

    def apart(a, b):
        return sum(float((a[k].double() - b[k].double()).square().sum()) for k in b if b[k].is_floating_point()) ** 0.5

    # a run of 20 steps: the discrete profile differs from the density by the width of a step
    assert apart(made.tensors, tracked) < 0.03 * apart(raw, tracked)
    name = averages.store(tmp_path, 0.07, made)
    assert name == "post-0.070" and averages.stored(tmp_path) == [name]
    assert torch.allclose(run.network(name).conv_in.weight, tracked["conv_in.weight"], atol=1e-4)
    with pytest.raises((RecipeError, UnknownNameError), match="post-0.070"):
        run.network("post-0.071")
    with pytest.raises(RecipeError, match=r"would be off by \d+%"):
        averages.reconstruct(tmp_path, 0.002)


def test_two_widths_are_needed_and_snapshots_too(tiny, tmp_path):
    with pytest.raises(RecipeError, match="ema.power=0.05,0.10"):
        train(override(tiny, ["ema.snapshots=4"]), tmp_path / "a", quiet=True)
    train(override(tiny, ["train.images=32"]), tmp_path / "b", quiet=True)
    with pytest.raises(RecipeError, match="ema.snapshots=16"):
        averages.reconstruct(tmp_path / "b", 0.1)


def test_an_early_snapshot_is_a_weak_model(tiny, tmp_path):
    """Autoguidance @STEP takes the average as it was at that step, though the checkpoint is long gone."""
    fields = ["ema.power=0.05,0.10", "ema.use=power-0.10", "ema.snapshots=4"]
    run = train(override(tiny, fields), tmp_path, quiet=True)
    early = checkpoint.steps(tmp_path / "snapshots")[0]
    assert early not in checkpoint.steps(tmp_path / "checkpoints")
    weak = replace(run, recipe=override(run.recipe, [f"sample.autoguidance=@{early}"])).weak()
    saved = checkpoint.load(tmp_path / "snapshots" / f"step-{early}").tensors["ema-power-0.10"]
    own = weak.network.state_dict()
    assert own.keys() == saved.keys() and all(torch.equal(own[name], value) for name, value in saved.items())
    with pytest.raises(RecipeError, match="Unknown average 'raw'"):
        replace(run, recipe=override(run.recipe, [f"sample.autoguidance=@{early}@raw"])).weak()


def test_an_average_that_was_chosen_stays_marked_when_it_is_made_again(tmp_path):
    """Else a score on the images that chose it would carry no flag."""
    chosen, made = {"by": "FD", "candidates": 7}, averages.Fitted({"w": torch.ones(2)}, 0.0, 64, 4, 2, {})
    for selected, tensors, found in ((chosen, 1.0, chosen), (None, 1.0, chosen), (None, 2.0, None)):
        name = averages.store(tmp_path, 0.08, replace(made, tensors={"w": torch.full((2,), tensors)}), selected)
        assert averages.load(tmp_path, name).state.get("selected") == found


@pytest.mark.parametrize(("kept", "name"), [("0.10", "power-0.1"), ("0.075,0.125", "power-0.07")])
def test_a_weak_model_is_an_average_by_any_of_its_names(kept, name):
    """By the number as a person writes it, and by the rounded name of earlier versions."""
    weak = override(edm_digits(), [f"ema.power={kept}", f"ema.use=power-{kept[:4]}", f"sample.autoguidance=@{name}"])
    assert fate_of(weak) == ""
    assert "Unknown average 'power-0.33'" in fate_of(override(weak, ["sample.autoguidance=@power-0.33"]))


@pytest.mark.parametrize("use", ["post-0.080", "post-0.08", "post-8e-2", "post-.08"])
def test_an_average_made_afterwards_is_known_by_its_number(use, tmp_path):
    """And so is how it was chosen: its score on the images that chose it carries a flag, however it is spelled."""
    weights = {"what": "width", "by": "FD", "n": 40, "candidates": 7, "reference": "digits"}
    averages.store(tmp_path, 0.08, averages.Fitted({"w": torch.ones(2)}, 0.0, 64, 4, 2, {}), weights)
    averages.store(tmp_path, 0.081, averages.Fitted({"w": torch.zeros(2)}, 0.0, 64, 4, 2, {}))
    state = {"seen": 64, "step": 4, "recipe": edm_digits().to_json()}
    checkpoint.save(tmp_path / "checkpoints", 4, {"network": {"w": torch.zeros(2)}}, state)
    run = Run(tmp_path, edm_digits(), {})
    found, group = run.taken(use)
    assert torch.equal(found.tensors[group]["w"], torch.ones(2))
    assert [choice["candidates"] for choice in run.selected(use)] == [7]
    assert run.making(use).weights == "post-0.080"
    with pytest.raises(RecipeError, match="Unknown average 'post-0.0801'"):
        run.taken("post-0.0801")


def fate_of(recipe):
    try:
        check(plan(replace(recipe, shape=Shape(1, 8, 8, tuple("0123456789")), sigma_data=0.5)))
    except RecipeError as error:
        return str(error)
    return ""
