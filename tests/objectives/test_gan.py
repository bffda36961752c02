"""The adversarial losses: where the best discriminator is, how noise falls, and that it is added once."""

from __future__ import annotations

import math

import pytest
import torch

from sfumato.objectives.gan import gan
from sfumato.objectives.hinge import hinge


class Fixed(torch.nn.Module):
    """A discriminator that returns one learnable logit for real-looking images (> 0) and one for others."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.zeros(2, dtype=torch.float64))
        self.saw = []

    def discriminator(self, x, label=None):
        self.saw.append(x)
        return self.logits[(x.mean((1, 2, 3)) > 0).long()]


def batch(count=8):
    x0 = torch.full((count, 1, 2, 2), 0.9, dtype=torch.float64)
    return x0, -x0, torch.arange(count)


def test_where_nothing_can_be_told_the_loss_is_two_ln_two():
    x0, made, positions = batch()
    half = gan(seed=0).discriminator(Fixed(), x0, made, None, positions, 0.0)
    assert torch.allclose(half.each, torch.full((8,), 2 * math.log(2), dtype=torch.float64))
    assert set(half.parts) == {"real", "fake"} and float(half.parts["real"].mean()) == 0.5


@pytest.mark.parametrize(("real", "fake"), [(0.9, 0.0), (0.9, 0.1), (0.7, 0.3)])
def test_the_best_discriminator_believes_the_smoothed_targets(real, fake):
    """D's gradient vanishes at s(l) = (real p + fake q) / (p + q): `real` on real images, `fake` on made ones."""
    x0, made, positions = batch()
    pair = Fixed()
    with torch.no_grad():
        pair.logits.copy_(torch.tensor([max(fake, 1e-12), real], dtype=torch.float64).logit())
    gan(0, real, fake).discriminator(pair, x0, made, None, positions, 0.0).each.sum().backward()
    assert pair.logits.grad.abs().max() < 1e-10


def test_where_data_and_generator_overlap_the_best_discriminator_is_the_mixture():
    """Real and made images of one kind: the gradient vanishes at s(l) = (real + fake) / 2."""
    x, pair = torch.full((4, 1, 2, 2), 0.9, dtype=torch.float64), Fixed()
    with torch.no_grad():
        pair.logits.fill_(torch.tensor((0.9 + 0.3) / 2, dtype=torch.float64).logit())
    gan(0, 0.9, 0.3).discriminator(pair, x, x, None, torch.arange(4), 0.0).each.sum().backward()
    assert pair.logits.grad.abs().max() < 1e-12


def test_the_generator_is_pulled_towards_the_real_target():
    """G's loss does not saturate: where D is sure an image is made, the gradient by its logit is -real."""
    _, made, positions = batch(1)
    pair = Fixed()
    with torch.no_grad():
        pair.logits.fill_(-20.0)
    gan(0, real=0.9).generator(pair, made, None, positions, 0.0).each.sum().backward()
    assert float(pair.logits.grad.sum()) == pytest.approx(-0.9, abs=1e-6)


def test_noise_is_added_once_to_real_and_made_and_falls_to_zero():
    x0, made, positions = torch.zeros(400, 1, 4, 4), torch.zeros(400, 1, 4, 4), torch.arange(400)
    loss = gan(seed=1, noise=0.4, noise_until=0.5)
    pair = Fixed()
    loss.discriminator(pair, x0, made, None, positions, 0.25)
    real, fake = pair.saw
    for seen in (real, fake):
        assert float(seen.std()) == pytest.approx(0.2, rel=0.03)  # half of 0.4: once, not twice
    assert abs(float((real * fake).mean())) < 0.003  # noises of their own
    assert loss.std(0.0) == 0.4 and loss.std(0.5) == 0.0 and loss.std(0.9) == 0.0
    assert loss.shown(x0, positions, "real", 0.9) is x0
    loss.generator(pair, made, None, positions, 0.25)
    assert torch.equal(pair.saw[-1], fake)  # G is judged on the very image D has seen


def test_noise_does_not_depend_on_the_batch():
    x, loss = torch.zeros(6, 1, 2, 2), gan(seed=3, noise=0.1)
    whole = loss.shown(x, torch.arange(6), "real", 0.0)
    assert torch.equal(whole[2:4], loss.shown(x[2:4], torch.arange(2, 4), "real", 0.0))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"real": 0.1, "fake": 0.9}, "0 <= fake < real <= 1"),
        ({"real": 1.1}, "0 <= fake < real <= 1"),
        ({"noise": -1.0}, "standard deviation >= 0"),
        ({"noise_until": 0.0}, r"share in \(0, 1\]"),
    ],
)
def test_impossible_options_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        gan(0, **options)


class Smooth(torch.nn.Module):
    """A small smooth discriminator of 2x2 images."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(
            torch.randn(5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
        )

    def discriminator(self, x, label=None):
        return torch.tanh(x.flatten(1) @ self.weight.T).sum(dim=1)


@pytest.mark.parametrize("make", [gan, hinge])
def test_r1_is_the_squared_gradient_at_real_images(make):
    """Against finite differences of D's logit in every pixel, and of the penalty in every weight."""
    generator = torch.Generator().manual_seed(0)
    x0, made = torch.randn(2, 3, 1, 2, 2, dtype=torch.float64, generator=generator)
    pair, positions, step = Smooth(), torch.arange(3), 1e-5

    def penalty():
        with_r1, without = (
            make(seed=0, r1=r1).discriminator(pair, x0, made, None, positions, 0.0).each for r1 in (3.0, 0.0)
        )
        return with_r1 - without

    moves = step * torch.eye(4, dtype=torch.float64).reshape(4, 1, 1, 2, 2)
    slopes = torch.stack([(pair.discriminator(x0 + d) - pair.discriminator(x0 - d)) / (2 * step) for d in moves])
    torch.testing.assert_close(penalty(), 1.5 * slopes.square().sum(dim=0), rtol=1e-8, atol=1e-10)
    penalty().sum().backward()
    for i in ((0, 0), (4, 2)):
        values = []
        for sign in (1, -1):
            with torch.no_grad():
                pair.weight[i] += sign * step
            values.append(penalty().sum().item())
            with torch.no_grad():
                pair.weight[i] -= sign * step
        assert float(pair.weight.grad[i]) == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-6)


def test_the_best_discriminator_of_the_hinge_is_the_sign_and_its_loss_the_overlap():
    """Of densities p and q: D = sign(p - q), and the loss is 2 sum min(p, q)."""
    p, q = torch.tensor([0.5, 0.25, 0.2, 0.05]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    losses, logits = hinge(seed=0).losses, torch.linspace(-3, 3, 601)
    cost = p[:, None] * losses.real(logits) + q[:, None] * losses.fake(logits)
    best = cost.min(dim=1)
    assert float(best.values.sum()) == pytest.approx(2 * float(torch.minimum(p, q).sum()), abs=1e-6)
    torch.testing.assert_close(logits[best.indices], torch.sign(p - q), atol=1e-6, rtol=0)
    assert torch.equal(losses.generator(logits), -logits)


def test_turns_are_counted_from_one():
    with pytest.raises(ValueError, match="at least 1; got 0"):
        hinge(seed=0, every=0)
