"""Denoisers known in closed form: the ground truth that samplers, likelihoods and guidance are tested against.

For x = alpha x0 + sigma n, E[x0 | x] is exact for

    Gaussian          x0 ~ N(mu, Sigma):  mu + alpha Sigma (alpha^2 Sigma + sigma^2 I)^-1 (x - alpha mu)
    GaussianMixture   posterior-weighted mean of its components' Gaussian estimates
    Empirical         the softmax-weighted mean of a finite set of images (EDM, eq. 57: the memorising optimum)
    JointGaussian     of (x0, y) together: E[x0 | x, y], y being the vector and the image of a condition

The probability-flow ODE of a Gaussian is solved in closed form too: in the eigenbasis of Sigma every coordinate of
x - alpha mu keeps its quantile, so it scales with its own standard deviation sqrt(alpha^2 s2 + sigma^2).

Points are (B, d) or images (B, C, H, W) flattened to d. Work in float64 for tests.

References:
    Karras et al. Elucidating the Design Space of Diffusion-Based Generative Models. 2022, appendix B.3.
    https://arxiv.org/abs/2206.00364
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from sfumato.core.condition import NULL, Label, part_of
from sfumato.core.denoiser import Prediction
from sfumato.core.level import Level, like


def _check_label(label: Tensor, count: int, what: str) -> None:
    if bool(((label < NULL) | (label >= count)).any()):
        raise ValueError(f"Labels lie in [0, {count}) for {count} {what}, or are {NULL}; got {label.tolist()[:8]}.")


class Gaussian:
    """Know everything about x0 ~ N(mean, basis diag(variances) basis^T).

    Arguments:
        mean: Mean of the data, shape (d,).
        variances: Eigenvalues of the covariance, shape (d,), >= 0.
        basis: Orthonormal columns, shape (d, d); the identity if None.
    """

    def __init__(self, mean: Tensor, variances: Tensor, basis: Tensor | None = None) -> None:
        self.mean, self.variances = mean, variances
        self.basis = torch.eye(len(mean), dtype=mean.dtype) if basis is None else basis

    @classmethod
    def from_covariance(cls, mean: Tensor, covariance: Tensor) -> Gaussian:
        """Make it from a symmetric positive semi-definite covariance, shape (d, d)."""
        variances, basis = torch.linalg.eigh(covariance)
        return cls(mean, variances.clamp(min=0), basis)

    def _coordinates(self, x: Tensor, level: Level) -> tuple[Tensor, Tensor, Tensor]:
        """Return (coordinates of x - alpha mu in the eigenbasis, their variances, alpha), each (B or 1, d or 1)."""
        flat = x.flatten(1)
        alpha, sigma = (like(c, flat).reshape(-1, 1) for c in (level.alpha, level.sigma))
        variances = alpha**2 * self.variances.to(flat) + sigma**2
        return (flat - alpha * self.mean.to(flat)) @ self.basis.to(flat), variances, alpha

    def __call__(self, x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        z, variances, alpha = self._coordinates(x, level)
        gain = alpha * self.variances.to(z) / variances
        return Prediction((self.mean.to(z) + (gain * z) @ self.basis.to(z).T).reshape(x.shape))

    def log_density(self, x: Tensor, level: Level) -> Tensor:
        """Return ln p(x) at a level, in nats, shape (B,)."""
        z, variances, _ = self._coordinates(x, level)
        return -0.5 * (z**2 / variances + variances.log() + math.log(2 * math.pi)).sum(1)

    def ode(self, x: Tensor, t: Level, s: Level) -> Tensor:
        """Return the exact probability-flow solution at level s of the trajectory that is x at level t."""
        z, variances_t, _ = self._coordinates(x, t)
        alpha_s, sigma_s = (like(c, z).reshape(-1, 1) for c in (s.alpha, s.sigma))
        variances_s = alpha_s**2 * self.variances.to(z) + sigma_s**2
        z = z * (variances_s / variances_t).sqrt()
        return (alpha_s * self.mean.to(z) + z @ self.basis.to(z).T).reshape(x.shape)


class GaussianMixture:
    """Know everything about a mixture of Gaussians; a label selects its component.

    Arguments:
        weights: Shape (K,), positive, sum 1.
        components: K Gaussians of one dimension.
    """

    def __init__(self, weights: Tensor, components: list[Gaussian]) -> None:
        if len(weights) != len(components):
            raise ValueError(f"One weight per component: got {len(weights)} weights for {len(components)} components.")
        self.weights, self.components = weights, components

    def _log_joint(self, x: Tensor, level: Level) -> Tensor:
        log_p = torch.stack([c.log_density(x, level) for c in self.components], 1)
        return log_p + self.weights.log().to(log_p)

    def __call__(self, x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        each = torch.stack([c(x, level).x0.flatten(1) for c in self.components], 1)  # (B, K, d)
        posterior = self._log_joint(x, level).softmax(1)
        chosen = part_of(label, "label")
        if chosen is not None:
            _check_label(chosen, len(self.components), "components")
            alone = torch.nn.functional.one_hot(chosen.clamp(min=0), len(self.components)).to(posterior)
            posterior = torch.where((chosen == NULL).unsqueeze(1), posterior, alone)
        return Prediction((posterior.unsqueeze(2) * each).sum(1).reshape(x.shape))

    def log_density(self, x: Tensor, level: Level) -> Tensor:
        """Return ln p(x) at a level, in nats, shape (B,)."""
        return self._log_joint(x, level).logsumexp(1)

    @property
    def mean(self) -> Tensor:
        """The mean of x0, shape (d,)."""
        return sum((w * c.mean for w, c in zip(self.weights, self.components)), torch.zeros(()))

    @property
    def covariance(self) -> Tensor:
        """The covariance of x0, shape (d, d)."""
        total = torch.zeros(())
        for w, c in zip(self.weights, self.components):
            d = (c.mean - self.mean).unsqueeze(1)
            total = total + w * ((c.basis * c.variances) @ c.basis.T + d @ d.T)
        return total


class Empirical:
    """Know the posterior mean under a finite data set, each image equally likely.

    Arguments:
        images: Shape (N, ...), the range the denoiser works in.
        labels: int64 (N,) or None; a label restricts the average to its class.
    """

    def __init__(self, images: Tensor, labels: Tensor | None = None) -> None:
        self.images, self.labels = images, labels

    def __call__(self, x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        flat, data = x.flatten(1), self.images.flatten(1).to(x)
        alpha, sigma = (like(c, flat).reshape(-1, 1) for c in (level.alpha, level.sigma))
        # ||x - alpha x0||^2 without the (B, N, d) difference; ||x||^2 cancels in the softmax
        distance = alpha**2 * (data**2).sum(1) - 2 * alpha * (flat @ data.T)
        logits = -distance / (2 * sigma**2)
        chosen = part_of(label, "label")
        if chosen is not None:
            if self.labels is None:
                raise ValueError("This data set has no labels; call the denoiser with label=None.")
            _check_label(chosen, 1 + int(self.labels.max()), "classes")
            keep = (self.labels.to(chosen) == chosen.unsqueeze(1)) | (chosen == NULL).unsqueeze(1)
            logits = logits.masked_fill(~keep, -math.inf)
        return Prediction((logits.softmax(1) @ data).reshape(x.shape))


class JointGaussian:
    """Know the posterior mean of x0 where (x0, y) is Gaussian and y is what a condition tells.

    y is the vector, then the image, of the condition, flattened. With K the numbers of y that are told,

        x0 | y_K ~ N(mu_x + S_xK S_KK^-1 (y_K - mu_K), S_xx - S_xK S_KK^-1 S_Kx)

    and the estimate is that of this `Gaussian`, for each image by itself.

    Arguments:
        mean: Mean of (x0, y), shape (d + k,).
        covariance: Covariance of (x0, y), shape (d + k, d + k), positive definite in y.
        size: Length d of x0.
    """

    def __init__(self, mean: Tensor, covariance: Tensor, size: int) -> None:
        self.mean, self.covariance, self.size = mean, covariance, size

    def given(self, y: Tensor) -> Gaussian:
        """Return the distribution of x0 for each row of y.

        Arguments:
            y: Shape (B, k), NaN where a number is not told, at the same places in every row.

        Returns:
            A Gaussian whose mean is of shape (B, d).
        """
        d, known = self.size, self.size + (~y[0].isnan()).nonzero().flatten()
        gain = torch.linalg.solve(self.covariance[known][:, known], self.covariance[known, :d]).T  # (d, |K|)
        mean = self.mean[:d] + (y[:, known - d] - self.mean[known]) @ gain.T
        return Gaussian.from_covariance(mean, self.covariance[:d, :d] - gain @ self.covariance[known, :d])

    def __call__(self, x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        told = [part.flatten(1) for name in ("vector", "image") if (part := part_of(label, name)) is not None]
        unknown = torch.full((len(x), len(self.mean) - self.size), math.nan, dtype=self.mean.dtype)
        y = torch.cat(told, 1).to(self.mean) if told else unknown
        x0 = torch.empty_like(x)
        for pattern in y.isnan().unique(dim=0):
            rows = (y.isnan() == pattern).all(1).nonzero().flatten()
            x0[rows] = self.given(y[rows])(x[rows], level[rows] if level.shape else level).x0
        return Prediction(x0)
