"""Laws of latents: probabilistic PCA, the plain VAE, a Gaussian prior in closed form, gradients of the joint loss."""

from __future__ import annotations

import math

import numpy
import pytest
import torch
from torch import Tensor, nn

from sfumato import draws, weightings
from sfumato.conditioning import quarter_log_nsr
from sfumato.core.denoiser import Preconditioned, unit_variance
from sfumato.core.level import Level, like
from sfumato.core.target import edm
from sfumato.latent.autoencoder import Autoencoder, Posterior
from sfumato.latent.bound import cross_entropy, levels_of, rest, saving, standard_normal
from sfumato.objectives.autoencoder import autoencoder
from sfumato.objectives.latent_joint import latent_joint

NODES = 400  # of the quadrature over ln SNR
D, C, S = 4, 2, 0.3  # numbers of an image and of a latent, the decoder's standard deviation


class Linear(nn.Module):
    """The autoencoder of probabilistic PCA: x = W z + mu + s n, with the exact posterior of z as its encoder."""

    noisy = True

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.w = nn.Parameter(torch.randn(D, C, generator=generator, dtype=torch.float64))
        self.mu = nn.Parameter(torch.randn(D, generator=generator, dtype=torch.float64))
        self.log_scale = nn.Parameter(torch.tensor(math.log(S), dtype=torch.float64))

    @property
    def covariance(self) -> Tensor:
        """Covariance of q(z | x), the same for every x: (I + W^T W / s^2)^-1, here made diagonal by `orthogonal`."""
        return torch.linalg.inv(torch.eye(C, dtype=torch.float64) + self.w.T @ self.w * torch.exp(-2 * self.log_scale))

    def encode(self, x: Tensor) -> Tensor:
        mean = (x.flatten(1) - self.mu) @ self.w @ self.covariance * torch.exp(-2 * self.log_scale)
        log_var = self.covariance.diagonal().log().expand_as(mean)
        return torch.cat((mean, log_var), 1)[:, :, None, None]

    def decode(self, z: Tensor) -> Tensor:
        return (z.flatten(1) @ self.w.T + self.mu).reshape(-1, 1, 2, 2)


@pytest.fixture
def linear() -> Linear:
    made = Linear()
    u, s, _ = torch.linalg.svd(made.w.data, full_matrices=False)
    made.w.data = u * s  # orthogonal columns: then the posterior is diagonal, as an encoder's is
    return made


@pytest.fixture
def images() -> Tensor:
    return torch.randn(5, 1, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def cubature(count: int) -> Tensor:
    """Return the points +- sqrt(c) e_i, over which the mean of a quadratic of unit normal noise is exact."""
    points = math.sqrt(count) * torch.eye(count, dtype=torch.float64)
    return torch.cat((points, -points))


def test_a_linear_autoencoder_is_probabilistic_pca_term_by_term(linear: Linear, images: Tensor) -> None:
    model, w, mu = Autoencoder(linear), linear.w.detach(), linear.mu.detach()
    with torch.no_grad():
        posterior = model.encode(images)
        x, m, v = images.flatten(1), posterior.mean.flatten(1), posterior.log_var.flatten(1).exp()
        points = [model.reconstruction(images, posterior.sample(n.reshape(1, C, 1, 1))) for n in cubature(C)]
        left = torch.stack(points).mean(0)
    expected = D / 2 * math.log(2 * math.pi * S**2) + (
        (x - m @ w.T - mu).square().sum(1) + (v @ w.T.square()).sum(1)
    ) / (2 * S**2)
    torch.testing.assert_close(left, expected, rtol=0, atol=1e-10)
    kl = 0.5 * (m.square() + v - 1 - v.log()).sum(1)
    torch.testing.assert_close(posterior.kl(), kl, rtol=0, atol=1e-10)
    torch.testing.assert_close(posterior.entropy(), 0.5 * (2 * math.pi * math.e * v).log().sum(1), rtol=0, atol=1e-10)
    marginal, apart = w @ w.T + S**2 * torch.eye(D, dtype=torch.float64), x - mu
    power = (apart @ torch.linalg.inv(marginal) * apart).sum(1)
    nll = 0.5 * (power + torch.linalg.slogdet(2 * math.pi * marginal)[1])
    torch.testing.assert_close(left + kl, nll, rtol=0, atol=1e-10)  # the exact posterior's bound is no bound


def test_the_objective_is_that_bound_at_the_noise_of_each_position(linear: Linear, images: Tensor) -> None:
    model, positions = Autoencoder(linear), torch.arange(7, 12)
    found = autoencoder(seed=1, kl=0.5)(model, images, None, positions)
    torch.testing.assert_close(found.each, found.parts["reconstruction"] + 0.5 * found.parts["kl"], rtol=1e-12, atol=0)
    alone = autoencoder(seed=1, kl=0.5)(model, images[2:3], None, positions[2:3])
    torch.testing.assert_close(alone.each, found.each[2:3], rtol=1e-12, atol=0)
    warming = autoencoder(seed=1, warmup=16)(model, images, None, positions)
    share = (positions + 1).double() / 16
    torch.testing.assert_close(
        warming.each, found.parts["reconstruction"] + share * found.parts["kl"], rtol=1e-12, atol=0
    )


class Zero(nn.Module):
    """A network that says nothing: behind EDM's target with sigma_data = 1 it is the denoiser of N(0, I)."""

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        return torch.zeros_like(x)


class OfGaussian(nn.Module):
    """The network whose denoiser is that of N(mean, diag var), behind EDM's target with sigma_data = 1."""

    def __init__(self, mean: Tensor, var: Tensor) -> None:
        super().__init__()
        self.mean, self.var, self.level = mean, var, Level.clean()

    def forward(self, x: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        nsr = torch.exp(4 * c_noise).reshape(-1, 1, 1, 1)
        x = x * (1 + nsr.square()).sqrt()  # what it was before c_in, on alpha = 1
        best = self.mean + self.var / (self.var + nsr.square()) * (x - self.mean)
        return (best - x / (1 + nsr.square())) * (1 + nsr.square()).sqrt() / nsr


def denoiser(network: nn.Module) -> Preconditioned:
    return Preconditioned(network, edm(1.0), c_noise=quarter_log_nsr(), c_in=unit_variance(1.0))


def test_a_prior_that_is_standard_normal_gives_the_plain_vae(images: Tensor) -> None:
    z, n = images.reshape(5, 4, 1, 1)[:, :2], torch.randn(5, 2, 1, 1, dtype=torch.float64)
    u = torch.linspace(0, 1, 5, dtype=torch.float64)
    found, level = cross_entropy(denoiser(Zero()), z, n, u, near=1e-6, far=1e3)
    assert torch.equal(saving(denoiser(Zero()), z, n, level), torch.zeros(5, dtype=torch.float64))
    torch.testing.assert_close(found, standard_normal(z), rtol=0, atol=1e-10)
    exact = 0.5 * (z.square().flatten(1).sum(1) + 2 * math.log(2 * math.pi))
    torch.testing.assert_close(standard_normal(z), exact, rtol=0, atol=1e-10)


def test_the_rest_is_what_the_bound_of_a_standard_normal_exceeds_its_entropy_by(images: Tensor) -> None:
    """L_T + the integral + the last term, each in closed form for N(0, I), less -ln N(z; 0, I)."""
    z, near, far = images.reshape(5, 4, 1, 1), 0.5, 20.0
    low, high, power, d = far**-2, near**-2, z.square().flatten(1).sum(1), 4
    prior = 0.5 * (d * math.log1p(low) + (d + low * power) / (1 + low) - d)
    walk = 0.5 * (d * math.log((1 + high) / (1 + low)) + (power - d) * (1 / (1 + low) - 1 / (1 + high)))
    last = d / 2 * math.log(2 * math.pi * math.e / high)
    torch.testing.assert_close(prior + walk + last - standard_normal(z), rest(z, near), rtol=0, atol=1e-10)


def test_the_exact_denoiser_of_a_gaussian_gives_its_density(images: Tensor) -> None:
    """The integral over all levels, by quadrature in u and exact in the noise, is -ln p(z) to 1e-10."""
    mean, var = torch.tensor([0.4, -0.7]).double(), torch.tensor([0.3, 2.0]).double()
    z, near, far = images.reshape(5, 4, 1, 1)[:, :2], 1e-6, 1e6
    model = denoiser(OfGaussian(mean.reshape(2, 1, 1), var.reshape(2, 1, 1)))
    nodes, weights = (torch.as_tensor(v) for v in numpy.polynomial.legendre.leggauss(NODES))
    level = levels_of(((nodes + 1) / 2).repeat_interleave(5), near, far)
    total, span = standard_normal(z) + rest(z, near), 2 * math.log(far / near)
    for n in cubature(2):
        each = saving(model, z.repeat(NODES, 1, 1, 1), n.reshape(1, 2, 1, 1).expand(5 * NODES, 2, 1, 1), level)
        total = total + span / 2 * (weights[:, None] * each.reshape(NODES, 5)).sum(0) / 4
    exact = 0.5 * ((z.flatten(1) - mean).square() / var + (2 * math.pi * var).log()).sum(1)
    torch.testing.assert_close(total, exact, rtol=0, atol=1e-10)


class Small(nn.Module):
    """A tiny joint network in float64: an autoencoder and a prior with a few weights each."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.coder, self.prior = Linear(), nn.Linear(3, 2, dtype=torch.float64)

    def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
        told = torch.cat((z.flatten(1), c_noise[:, None]), 1)
        out: Tensor = torch.tanh(self.prior(told)).reshape_as(z)
        return out


def test_joint_gradients_are_those_of_finite_differences(images: Tensor) -> None:
    """The encoder feels reconstruction, entropy and cross entropy; the prior its own loss alone."""
    network, positions = Small(), torch.arange(5)
    model = denoiser(network)
    loss = latent_joint(draws.lognormal(), weightings.edm(1.0), seed=0, batch=5, kl=0.7, near=0.05, far=20.0)

    def terms() -> tuple[Tensor, Tensor]:
        found = loss(model, images, None, positions)
        return (found.each - found.parts["prior"]).sum(), found.parts["prior"].sum()

    loss(model, images, None, positions).each.sum().backward()
    for name, parameter in network.named_parameters():
        which = 1 if name.startswith("prior") else 0
        flat, gradient = parameter.data.view(-1), parameter.grad.view(-1)
        for i in range(len(flat)):
            before, ends = float(flat[i]), []
            for step in (1e-6, -1e-6):
                flat[i] = before + step
                with torch.no_grad():
                    ends.append(float(terms()[which]))
            flat[i] = before
            slope = (ends[0] - ends[1]) / 2e-6
            assert slope == pytest.approx(float(gradient[i]), rel=1e-6, abs=1e-6), name
    assert all(p.requires_grad for p in network.parameters())  # the prior is held only inside the loss


def test_joint_loss_with_a_silent_prior_is_the_plain_vae(images: Tensor) -> None:
    class Silent(Small):
        def forward(self, z: Tensor, c_noise: Tensor, label: Tensor | None = None) -> Tensor:
            return 0 * z

    network, positions = Silent(), torch.arange(5)
    joint = latent_joint(draws.lognormal(), weightings.edm(1.0), seed=0, batch=5, near=1e-6, far=100.0)
    found = joint(denoiser(network), images, None, positions)
    plain = autoencoder(seed=0)(Autoencoder(network.coder), images, None, positions)
    torch.testing.assert_close(found.parts["reconstruction"], plain.parts["reconstruction"], rtol=0, atol=1e-12)
    z = Autoencoder(network.coder).encode(images)
    drawn = found.parts["cross_entropy"] - found.parts["entropy"]  # of one z; the KL is its mean over z
    assert drawn.shape == plain.parts["kl"].shape and isinstance(z, Posterior)
    points = [standard_normal(z.sample(n.reshape(1, C, 1, 1))) for n in cubature(C)]
    torch.testing.assert_close(torch.stack(points).mean(0) - z.entropy(), z.kl(), rtol=0, atol=1e-10)


def test_levels_reach_from_far_to_near_on_the_unit_circle() -> None:
    level = levels_of(torch.tensor([0.0, 0.5, 1.0], dtype=torch.float64), 0.01, 100.0)
    torch.testing.assert_close(level.nsr, torch.tensor([100.0, 1.0, 0.01], dtype=torch.float64))
    assert float((level.alpha**2 + level.sigma**2 - 1).abs().max()) < 1e-12 and like(level.alpha, level.alpha).shape
