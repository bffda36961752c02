"""Every higher-order step is a DDIM step plus a correction.

With lambda = ln(alpha / sigma) (half the log-SNR) the probability-flow ODE from x_t to x_s has two exact forms,

    x_s = (sigma_s / sigma_t) x_t + sigma_s int e^lambda  x0(lambda) dlambda        P = x0 ("data prediction")
    x_s = (alpha_s / alpha_t) x_t - alpha_s int e^-lambda n(lambda)  dlambda        P = n  ("noise prediction")

which swap into each other under (x0, alpha, lambda) <-> (n, sigma, -lambda). Holding P constant gives DDIM in both.
Let P be the polynomial through its newest value P_0 = P(lambda_t) and q others at lambda_j, and write
h = lambda_s - lambda_t (its negative for noise prediction) and r_j = (lambda_j - lambda_t) / (lambda_s - lambda_t):

    x_s = DDIM(x_t, P_0) + k_s sum_j c_j (P_j - P_0)        k_s = alpha_s (x0) or sigma_s (n)
    sum_j c_j r_j^m = M_m,  m = 1..q                        the weights that integrate powers exactly
    M_m = m! h phi_{m+1}(-h)                                the moments of the exponential

So a method is its choice of nodes, and a published variant is its choice of moments: Adams-Bashforth is the same with
M_m = h / (m + 1) in its own time variable. The reverse SDE of strength eta multiplies the signal by e^{-eta h} more,
which is the same weights at h (1 + eta).

DDIM itself is written without dividing by alpha or by sigma_s, so a step that starts from pure noise (alpha = 0) or
ends at the clean level is exact; at those two ends lambda is infinite and no correction exists.

A walk visits one level at a time and every coefficient is a scalar, so they are Python floats (`points`): double
precision, and ready to multiply a tensor of any dtype and device without a copy.

References:
    Lu et al. DPM-Solver: A Fast ODE Solver for Diffusion Probabilistic Model Sampling. 2022, prop. 3.1.
    https://arxiv.org/abs/2206.00927
    Lu et al. DPM-Solver++: Fast Solver for Guided Sampling of Diffusion Probabilistic Models. 2022, prop. 4.1.
    https://arxiv.org/abs/2211.01095
    Hochbruck, Ostermann. Exponential Integrators. 2010. https://doi.org/10.1017/S0962492910000048
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from sfumato.core.find import nearest
from sfumato.core.level import Level

Predict = Literal["x0", "noise"]
Moments = Literal["exact", "midpoint", "linear"]


def check_order(sampler: str, order: int, highest: int) -> None:
    """Refuse an order that a sampler does not have."""
    if not 1 <= order <= highest:
        raise ValueError(f"{sampler}: order must be between 1 and {highest}; got {order}.")


def check_choice(sampler: str, option: str, value: str, choices: Iterable[str]) -> None:
    """Refuse a value that is none of an option's choices, naming the nearest."""
    choices = list(choices)
    if value not in choices:
        raise ValueError(nearest(f"{option} of {sampler}", value, choices))


class Point(NamedTuple):
    """One level as numbers.

    Attributes:
        alpha: Coefficient of the signal.
        sigma: Coefficient of the noise.
        lam: ln(alpha / sigma); infinite at alpha = 0 and at the clean level.
    """

    alpha: float
    sigma: float
    lam: float

    @property
    def inside(self) -> bool:
        """Whether lambda is finite."""
        return math.isfinite(self.lam)


def points(grid: Level) -> list[Point]:
    """Return the levels of a grid as numbers."""
    return [Point(*row) for row in zip(grid.alpha.tolist(), grid.sigma.tolist(), (grid.log_snr / 2).tolist())]


def noise_in(x: Tensor, x0: Tensor, at: Point) -> Tensor:
    """Return the noise n of x = alpha x0 + sigma n."""
    return (x - at.alpha * x0) / at.sigma


def ddim(x: Tensor, x0: Tensor, t: Point, s: Point, eta: float = 0.0) -> Tensor:
    """Step from t to s with x0 held constant, the mean of the reverse SDE of strength eta (0: the ODE).

    Arguments:
        x: Images at level t, shape (B, ...).
        x0: The denoiser's estimate there.
        t: Start of the step, sigma > 0.
        s: End, cleaner than t.
        eta: Strength of the noise, >= 0.
    """
    h = s.lam - t.lam
    keep = s.sigma / t.sigma * (math.exp(-eta * h) if eta else 1.0)
    return keep * x - s.alpha * math.expm1(-(1 + eta) * h) * x0


def phi(z: float, count: int) -> list[float]:
    """Return phi_1(z) .. phi_count(z), with phi_0 = exp and phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z.

    For small z the recursion runs downwards from the power series of the last one, where nothing cancels.

    >>> phi(0.0, 3) == [1, 1 / 2, 1 / 6], phi(1.0, 2) == [math.e - 1, math.e - 2]
    (True, True)
    """
    if abs(z) < 1:
        values = [sum(z**n / math.factorial(n + count) for n in range(18))]
        for k in range(count - 1, 0, -1):
            values.insert(0, z * values[0] + 1 / math.factorial(k))
        return values
    values = [math.expm1(z) / z]
    for k in range(1, count):
        values.append((values[-1] - 1 / math.factorial(k)) / z)
    return values


def moments(h: float, count: int, kind: Moments = "exact") -> list[float]:
    """Return M_1 .. M_count of the exponential weight over a step of (signed) length h.

    Arguments:
        h: Length of the step in lambda, finite.
        count: How many values besides the newest take part, >= 1.
        kind: "exact" is m! h phi_{m+1}(-h). The published second-order formulas replace M_1, when it stands alone, by
            half of M_0: "midpoint" h phi_1(-h) / 2 (DPM-Solver, UniPC bh2) or "linear" h / 2 (UniPC bh1).
    """
    if count == 1 and kind == "linear":
        return [h / 2]
    if count == 1 and kind == "midpoint":
        return [-math.expm1(-h) / 2]
    return [math.factorial(m) * h * value for m, value in enumerate(phi(-h, count + 1)) if m > 0]


def weights(nodes: Sequence[float], m: Sequence[float]) -> list[float]:
    """Return the c_j with sum_j c_j r_j^m = M_m.

    Arguments:
        nodes: The r_j, distinct and not 0, in units of the step: r = 1 is its end, r < 0 the past.
        m: M_1, M_2, ..., as many.

    >>> weights([-1.0], [0.5])  # Adams-Bashforth of order 2: (3 f_0 - f_1) / 2
    [-0.5]
    """
    return np.linalg.solve(np.vander(nodes, len(nodes) + 1, increasing=True)[:, 1:].T, m).tolist()


def uniform_moments(count: int) -> list[float]:
    """Return the moments 1 / (m + 1) of a constant weight, those of Adams-Bashforth."""
    return [1 / (m + 1) for m in range(1, count + 1)]


def combine(total: Tensor, scale: float, c: Sequence[float], newest: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Return total + scale sum_j c_j (P_j - P_0)."""
    total = total - scale * sum(c) * newest
    for weight, value in zip(c, others):
        total = total + scale * weight * value
    return total


def exponential(
    x: Tensor,
    x0: Tensor,
    t: Point,
    s: Point,
    others: Sequence[tuple[Point, Tensor]] = (),
    *,
    predict: Predict = "x0",
    kind: Moments = "exact",
    published: bool = False,
    eta: float = 0.0,
) -> Tensor:
    """Step from t to s along the polynomial through P_0 at t and other values of P.

    Arguments:
        x: Images at level t, shape (B, ...).
        x0: The denoiser's estimate at t.
        t: Start of the step, sigma > 0.
        s: End, cleaner than t.
        others: Pairs of level and P there (x0 or noise, as `predict` says); those without a finite lambda are left out.
        predict: Which prediction is the polynomial.
        kind: Which moments are used; see `moments`.
        published: Halve M_2 when two others take part, the factor that published third-order multistep formulas lack.
        eta: Strength of the reverse SDE whose mean is taken; needs `predict` = "x0".

    Returns:
        Images at level s (their mean if eta > 0), the shape of x.
    """
    start = ddim(x, x0, t, s, eta)
    others = [(at, value) for at, value in others if at.inside]
    if not others or not t.inside or not s.inside:
        return start
    h = s.lam - t.lam
    m = moments(h * (1 + eta) if predict == "x0" else -h, len(others), kind)
    if published and len(others) == 2:
        m[1] /= 2
    c = weights([(at.lam - t.lam) / h for at, _ in others], m)
    newest, scale = (x0, s.alpha) if predict == "x0" else (noise_in(x, x0, t), s.sigma)
    return combine(start, scale, c, newest, [value for _, value in others])
