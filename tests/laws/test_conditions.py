"""Laws of conditions beyond a class: closed forms, and null as nothing, bit for bit."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.core.condition import NULL, Condition
from sfumato.core.denoiser import Prediction
from sfumato.core.exact import Gaussian, JointGaussian
from sfumato.core.find import find
from sfumato.core.level import Level
from sfumato.core.noise import normal
from sfumato.guidance.cfg import cfg
from sfumato.objectives._noising import Noising

D, K = 3, 2
ROOT = normal(range(D + K), (D + K,), seed=5, purpose="root", dtype=torch.float64)
COVARIANCE = ROOT @ ROOT.T + 0.1 * torch.eye(D + K, dtype=torch.float64)
MEAN = torch.linspace(-1, 1, D + K, dtype=torch.float64)
JOINT = JointGaussian(MEAN, COVARIANCE, D)
LEVEL = Level.of(0.6, 0.9)
X = normal(range(4), (D,), seed=1, purpose="x", dtype=torch.float64)
Y = normal(range(4), (K,), seed=2, purpose="y", dtype=torch.float64)
NETWORKS = {  # small ones that are told four classes, three numbers and an image of two channels
    "unet": {"width": 16, "mult": (1, 2), "blocks": 1, "head_width": 16},
    "ddpm": {"width": 32, "mult": (1, 2), "blocks": 1, "attention": (), "dropout": 0.0},
    "adm": {"width": 32, "mult": (1, 2), "blocks": 1, "attention": ()},
    "songunet": {"width": 16, "mult": (1, 2), "blocks": 1, "attention": (), "image_path": True},
    "dit": {"width": 48, "depth": 2, "heads": 2},
    "edm2": {"width": 16, "mult": (1, 2), "blocks": 1, "attention": (), "head_width": 16},
    "jit": {"width": 48, "depth": 2, "heads": 2, "context": 2},
}


def of_joint(x: torch.Tensor, level: Level, y: torch.Tensor) -> torch.Tensor:
    """Return E[x0 | x, y] from the covariance of (x0, x, y), a second road to it."""
    a, s = float(level.alpha), float(level.sigma)
    xx, xy, yy = COVARIANCE[:D, :D], COVARIANCE[:D, D:], COVARIANCE[D:, D:]
    seen = torch.cat((torch.cat((a * a * xx + s * s * torch.eye(D), a * xy), 1), torch.cat((a * xy.T, yy), 1)))
    gain = torch.cat((a * xx, xy), 1) @ torch.linalg.inv(seen)
    return MEAN[:D] + torch.cat((x - a * MEAN[:D], y - MEAN[D:]), 1) @ gain.T


@pytest.mark.parametrize("as_image", [False, True])
def test_the_conditional_denoiser_of_a_joint_gaussian(as_image):
    told = Condition(image=Y.reshape(4, 1, 1, K)) if as_image else Condition(vector=Y)
    assert torch.allclose(JOINT(X, LEVEL, told).x0, of_joint(X, LEVEL, Y), atol=1e-12)


def test_what_is_not_told_is_integrated_out():
    marginal = Gaussian.from_covariance(MEAN[:D], COVARIANCE[:D, :D])(X, LEVEL).x0
    assert torch.allclose(JOINT(X, LEVEL).x0, marginal, atol=1e-12)
    some = Y.clone()
    some[1], some[2, 0] = math.nan, math.nan
    found = JOINT(X, LEVEL, Condition(vector=some)).x0
    assert torch.allclose(found[1], marginal[1], atol=1e-12)
    kept = [*range(D), D + 1]
    alone = JointGaussian(MEAN[kept], COVARIANCE[kept][:, kept], D)
    assert torch.allclose(found[2], alone(X[2:3], LEVEL, Condition(vector=Y[2:3, 1:])).x0[0], atol=1e-12)


def test_a_walk_that_is_told_y_ends_where_the_ode_of_its_conditional_gaussian_does():
    """Walk with the conditional denoiser, and compare with the closed form of p(x0 | y), image by image."""
    grid = Level.of(torch.ones(241, dtype=torch.float64), torch.linspace(80**0.25, 0, 241, dtype=torch.float64) ** 4)
    *_, state = find("sampler", "heun")(JOINT, 80.0 * X, grid, label=Condition(vector=Y))
    exact = torch.cat([JOINT.given(y[None]).ode(80.0 * x[None], grid[0], grid[-1]) for x, y in zip(X, Y)])
    assert torch.allclose(state.x, exact, atol=1e-3)


def test_guidance_by_part_adds_up_what_each_part_changes():
    both = Condition(vector=Y[:, :1], image=Y[:, 1:].reshape(4, 1, 1, 1))
    null = torch.full_like(Y[:, :1], math.nan)
    first = JOINT(X, LEVEL, Condition(vector=torch.cat((Y[:, :1], null), 1))).x0
    whole, none = JOINT(X, LEVEL, both).x0, JOINT(X, LEVEL).x0
    found = cfg(JOINT, 1.0, vector=2.0, image=3.0)(X, LEVEL, both)
    assert torch.allclose(found.x0, none + 2 * (first - none) + 3 * (whole - first), atol=1e-12)
    plain = cfg(JOINT, 2.0)(X, LEVEL, both)
    assert torch.allclose(plain.x0, none + 2 * (whole - none), atol=1e-12)


def test_guidance_without_weight_is_the_model_and_equal_weights_cost_two_calls():
    rows = []

    def counted(x: torch.Tensor, level: Level, label: Condition) -> Prediction:
        rows.append(len(x))
        return JOINT(x, level, label)

    both = Condition(vector=Y[:, :1], image=Y[:, 1:].reshape(4, 1, 1, 1))
    assert torch.equal(cfg(counted, 1.0)(X, LEVEL, both).x0, JOINT(X, LEVEL, both).x0)
    cfg(counted, 2.0)(X, LEVEL, both)
    cfg(counted, 2.0, image=3.0)(X, LEVEL, both)
    assert rows == [4, 8, 12]


def built(name: str, **more: int) -> torch.nn.Module:
    """Return a small network of 16x16 images whose last layers are not zero."""
    torch.manual_seed(0)
    network = find("network", name)(channels=1, out_channels=1, classes=4, size=16, **NETWORKS[name], **more).eval()
    torch.manual_seed(1)
    for own, value in network.named_parameters():
        if not bool(value.any()) and "beside" not in own and ".vector." not in own and ".image." not in own:
            torch.nn.init.normal_(value, std=0.1)
    return network


@pytest.mark.parametrize("name", NETWORKS)
def test_null_is_nothing_and_the_other_weights_start_as_without(name):
    plain, told = built(name), built(name, vector=3, extra=2)
    x, c = normal(range(2), (1, 16, 16), purpose="x"), torch.tensor([0.3, 0.7])
    label = torch.tensor([1, NULL])
    own = told.state_dict()
    assert all(torch.equal(value, own[key]) for key, value in plain.state_dict().items())
    expected = plain(x, c, label)
    nothing = Condition(label, torch.full((2, 3), math.nan), torch.full((2, 2, 16, 16), math.nan))
    something = Condition(label, torch.ones(2, 3), torch.ones(2, 2, 16, 16))
    assert torch.equal(told(x, c, label), expected)
    assert torch.equal(told(x, c, something), expected)  # the layers begin at zero
    with torch.no_grad():
        for key, value in told.named_parameters():
            if key not in plain.state_dict():
                value.normal_()
    assert torch.equal(told(x, c, nothing), expected)
    assert torch.equal(told(x, c, Condition(label)), expected)
    for part in ({"vector": something.vector}, {"image": something.image}):
        changed = told(x, c, Condition(label, **part))
        assert not torch.equal(changed, expected)
    with pytest.raises(ValueError, match="told no vector"):
        plain(x, c, Condition(label, vector=something.vector))


@pytest.mark.parametrize("name", ["unet", "ddpm", "adm", "songunet", "dit", "jit"])
def test_a_one_hot_vector_is_a_class(name):
    by_class = built(name)
    torch.manual_seed(0)
    options = {**NETWORKS[name], **({"context": 0} if name == "jit" else {})}
    if name == "jit":
        by_class = find("network", name)(classes=4, size=16, **options).eval()
    by_vector = find("network", name)(channels=1, out_channels=1, size=16, **options, vector=4).eval()
    state = by_class.state_dict()
    (table,) = [key for key in state if key.endswith("label.table.weight")]
    rows = state.pop(table)[:4]
    ours = table.replace("table", "vector")
    by_vector.load_state_dict({**state, ours: torch.cat((rows, torch.zeros_like(rows))).T})
    x, c, label = normal(range(4), (1, 16, 16), purpose="x"), torch.full((4,), 0.4), torch.arange(4)
    hot = Condition(vector=torch.nn.functional.one_hot(label).float())
    assert torch.equal(by_vector(x, c, hot), by_class(x, c, label))


def test_parts_are_dropped_independently_and_as_often_as_said():
    noising = Noising(lambda u: LEVEL, 0, 64, 0.3, vector_dropout=0.2, image_dropout=0.5)
    n = torch.arange(20_000)
    told = Condition(torch.zeros_like(n), torch.zeros(len(n), 3), torch.zeros(len(n), 1, 1, 1))
    found = noising.label(told, n)
    label, image = found.label == NULL, found.image.isnan().flatten()
    numbers = found.vector.isnan()
    assert float(label.float().mean()) == pytest.approx(0.3, abs=0.012)
    assert float(image.float().mean()) == pytest.approx(0.5, abs=0.012)
    # all of them by chance 0.2, and a random half of them, which may be all or none, as often
    assert float(numbers.all(1).float().mean()) == pytest.approx(0.2 + 0.2 / 8, abs=0.012)
    assert float(numbers.float().mean()) == pytest.approx(0.3, abs=0.012)
    assert float((label & image).float().mean()) == pytest.approx(0.15, abs=0.012)
    assert torch.equal(noising.label(told.label, n), found.label)
