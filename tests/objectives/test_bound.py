"""The bound and the hybrid loss: unbiased, in parity with the published losses, with a true stop-gradient."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from sfumato import conditioning, grids, schedules, weightings
from sfumato.core import target as targets
from sfumato.core.denoiser import Preconditioned, Prediction
from sfumato.core.level import like
from sfumato.draws import uniform
from sfumato.likelihood.vlb import Bound
from sfumato.likelihood.vlb import vlb as walk
from sfumato.objectives._noising import Noising
from sfumato.objectives.hybrid import hybrid, terms
from sfumato.objectives.vlb import Chain, vlb

DATA = Path(__file__).parents[1] / "parity" / "data"
GOLD = np.load(DATA / "A_discrete.npz", allow_pickle=False)
CASES = json.loads((DATA / "manifest_AB.json").read_text())["sections"]["A_discrete"]["cases"]
LEARNED = {"learned_range": "range", "learned": "diagonal"}
HYBRID = sorted(c for c in CASES if c.startswith("loss_") and "vb" in CASES[c]["terms"])


def gold(key: str) -> Tensor:
    return torch.from_numpy(GOLD[key])


class Toy(nn.Module):
    """The fixtures' network, six channels out."""

    def __init__(self) -> None:
        super().__init__()
        for name in "SWVb":
            self.register_parameter(name, nn.Parameter(gold(f"toy/{name}").clone()))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        def mix(m: Tensor, inputs: Tensor) -> Tensor:
            return torch.einsum("oc,bchw->bohw", m, inputs)

        shifted = x + t.reshape(-1, 1, 1, 1) / CASES["toy"]["tau"]
        total = mix(self.S, x) + mix(self.W, shifted.sin()) + mix(self.V, x.roll(-1, 3)) + self.b.reshape(-1, 1, 1)
        return CASES["toy"]["gain"] * torch.tanh(total)


@pytest.mark.parametrize("case", HYBRID)
def test_hybrid_terms_match_the_published_code(case: str) -> None:
    """One forward pass gives the published squared error, bound and gradients of both, to 1e-10."""
    config = CASES[case]
    table = {"linear": schedules.linear, "cosine": schedules.cosine}[config["schedule"]](config["T"]).levels
    grid = grids.full(table) if config["respacing"] == "full" else grids.respaced(table, spec=config["respacing"])
    chain = Chain.of(grids.full(grid))  # `full` turns a grid into a table and back
    target = {"eps": targets.eps(), "x0": targets.x0(), "prev": targets.mu_tilde(chain.table)}[config["mean"]]
    scale = 1000 / config["T"] if config.get("rescale_timesteps") else 1.0
    head = LEARNED[config["variance"]]
    denoiser = Preconditioned(Toy(), target, c_noise=conditioning.index(table, scale=scale), table=table, variance=head)
    level = chain.table[1 + gold(f"{case}/t")]
    mse, bits = terms(
        denoiser,
        gold("toy/x0"),
        gold("toy/noise")[0],
        level,
        None,
        None,
        weightings.native(),
        chain,
        {"range": "learned", "diagonal": "diagonal"}[head],
        "tanh",
    )
    bits = bits * (chain.steps / 1000 if config["loss"] == "rescaled_mse" else 1)
    for name, mine in (("mse", mse), ("vb", bits)):
        assert torch.allclose(mine, gold(f"{case}/term_{name}"), rtol=1e-10, atol=0), name
        denoiser.zero_grad()
        mine.mean().backward(retain_graph=True)
        for key in "SWVb":
            theirs = gold(f"{case}/grad_{name}_{key}")
            found = getattr(denoiser.network, key).grad
            assert float((found - theirs).abs().max()) <= 1e-10 * float(theirs.abs().max()), (name, key)


def test_there_are_published_hybrid_losses() -> None:
    assert len(HYBRID) >= 2


def example(steps: int = 8):
    """A chain, a learned-variance denoiser in float64, images on the 256 codes and their positions."""
    schedule = schedules.cosine(steps)
    generator = torch.Generator().manual_seed(2)
    network = Toy().double()
    denoiser = Preconditioned(
        network, targets.eps(), c_noise=conditioning.index(schedule.levels), table=schedule.levels, variance="range"
    )
    x0 = torch.randint(0, 256, (steps, 3, 4, 4), generator=generator).double() / 127.5 - 1
    return schedule, denoiser, x0


def test_the_bound_of_all_steps_is_the_walked_bound() -> None:
    """T times the mean over every t equals the bound less L_T: with one image at all of its T levels, exactly."""
    schedule, denoiser, x0 = example()
    steps, table = schedule.steps, schedule.levels
    x0 = x0[:1].expand(steps, -1, -1, -1)
    loss = vlb(uniform(schedule), table, "range", seed=5, batch=steps)  # stratified: position i visits entry 1 + i
    positions = torch.arange(steps)
    with torch.no_grad():
        found = loss(denoiser, x0, None, positions)
        n = Noising(uniform(schedule), 5, steps).noise(x0, positions)
        steps_walked = walk(
            denoiser, x0[:1], grids.full(table), noise=lambda i: n[steps - 1 - i][None], variance="learned"
        )
        bound = Bound.gather(x0[:1], grids.full(table), steps_walked)
    assert float(found.each.mean()) == pytest.approx(float(bound.terms.sum()), rel=1e-10)


@pytest.mark.parametrize("head", ["range", "diagonal"])
def test_the_bound_does_not_move_the_mean(head: str) -> None:
    """The hybrid's gradient on the mean's half of the output is that of the squared error alone, bit for bit."""
    schedule, denoiser, x0 = example()
    denoiser.variance = head
    positions = torch.arange(len(x0))
    grads = {}
    for bound in (1e-3, 10.0):
        denoiser.zero_grad()
        loss = hybrid(uniform(schedule), weightings.simple(), schedule.levels, head, 5, len(x0), bound=bound)
        found = loss(denoiser, x0, None, positions)
        found.each.mean().backward()
        grads[bound] = denoiser.network.S.grad.clone()
        assert torch.allclose(found.parts["simple"] + found.parts["bound"], found.each)
    mean, variance = slice(0, 3), slice(3, 6)
    assert torch.equal(grads[1e-3][mean], grads[10.0][mean])
    assert not torch.equal(grads[1e-3][variance], grads[10.0][variance])


def test_a_fixed_variance_bound_is_the_weighted_error() -> None:
    """Away from L_0, a term with the small variance is the `vlb` weight of |D - x0|^2, in bits per dimension."""
    schedule, denoiser, x0 = example()
    chain = Chain.of(schedule.levels)
    level = schedule.levels[torch.arange(2, 1 + len(x0) - 1)]
    x0 = x0[: len(level)]
    n = torch.randn(x0.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    with torch.no_grad():
        prediction = denoiser(level.noisy(x0, n), level)
        bits = chain.bits(prediction, x0, level, "small")
        error = (prediction.x0 - x0).square().flatten(1).mean(1)
    weight = weightings.vlb(schedule.levels)(level, targets.eps())
    assert torch.allclose(bits, weight * error / np.log(2), rtol=1e-10)


def test_an_oracle_pays_the_decoder_only() -> None:
    """With D = x0 and the true variance every KL is 0, and L_0 is that of a sharp Gaussian about the truth."""
    schedule, _, x0 = example()
    chain = Chain.of(schedule.levels)
    bits = chain.bits(Prediction(x0), x0, schedule.levels[1 : 1 + len(x0)], "small")
    assert float(bits[0]) > 0 and bool((bits[1:].abs() < 1e-12).all())
    assert like(chain.kernels.x0, x0).shape == (len(x0), 1, 1, 1)


def test_the_hybrid_needs_a_learned_variance() -> None:
    schedule, _, _ = example()
    with pytest.raises(ValueError, match="variance=range"):
        hybrid(uniform(schedule), weightings.simple(), schedule.levels, "none", 0, 8)
    with pytest.raises(ValueError, match="bound must be positive"):
        hybrid(uniform(schedule), weightings.simple(), schedule.levels, "range", 0, 8, bound=0.0)
