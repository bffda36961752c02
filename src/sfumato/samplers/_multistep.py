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
from typing import Literal

import torch
from torch import Tensor

from sfumato.core.find import nearest
from sfumato.core.level import Level, like

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


def half_log_snr(level: Level) -> Tensor:
    """Return lambda = ln(alpha / sigma); infinite at alpha = 0 and at the clean level."""
    return level.log_snr / 2


def has_log_snr(level: Level) -> bool:
    """Tell whether lambda is finite there."""
    return bool(level.alpha > 0) and bool(level.sigma > 0)


def noise_in(x: Tensor, x0: Tensor, level: Level) -> Tensor:
    """Return the noise n of x = alpha x0 + sigma n."""
    return (x - like(level.alpha, x) * x0) / like(level.sigma, x)


def ddim(x: Tensor, x0: Tensor, t: Level, s: Level, eta: float = 0.0) -> Tensor:
    """Step from t to s with x0 held constant, the mean of the reverse SDE of strength eta (0: the ODE).

    Arguments:
        x: Images at level t, shape (B, ...).
        x0: The denoiser's estimate there.
        t: Level of shape (), sigma > 0.
        s: Cleaner level of shape ().
        eta: >= 0.
    """
    h = half_log_snr(s) - half_log_snr(t)
    keep = s.sigma / t.sigma * torch.exp(-eta * h) if eta else s.sigma / t.sigma
    return like(keep, x) * x - like(s.alpha * torch.expm1(-(1 + eta) * h), x) * x0


def phi(z: Tensor, count: int) -> Tensor:
    """Return phi_1(z) .. phi_count(z), with phi_0 = exp and phi_{k+1}(z) = (phi_k(z) - 1 / k!) / z.

    They are the first row of the exponential of [[z, 1], [0, shift]], which needs no case for small z.

    >>> phi(torch.tensor(0.0, dtype=torch.float64), 3).tolist()
    [1.0, 0.5, 0.16666666666666666]
    """
    matrix = torch.diag(torch.ones(count, dtype=torch.float64), 1)
    matrix[0, 0] = z
    return torch.linalg.matrix_exp(matrix)[0, 1:]


def moments(h: Tensor, count: int, kind: Moments = "exact") -> Tensor:
    """Return M_1 .. M_count of the exponential weight over a step of (signed) length h.

    Arguments:
        h: Scalar float64, finite, not 0.
        count: How many values besides the newest take part, >= 1.
        kind: "exact" is m! h phi_{m+1}(-h). The published second-order formulas replace M_1, when it stands alone, by
            half of M_0: "midpoint" h phi_1(-h) / 2 (DPM-Solver, UniPC bh2) or "linear" h / 2 (UniPC bh1).
    """
    if count == 1 and kind == "linear":
        return h.reshape(1) / 2
    values = phi(-h, count + 1)
    if count == 1 and kind == "midpoint":
        return h * values[:1] / 2
    factorials = torch.tensor([math.factorial(m) for m in range(1, count + 1)], dtype=torch.float64)
    return factorials * h * values[1:]


def weights(nodes: Tensor, m: Tensor) -> Tensor:
    """Return the c_j with sum_j c_j r_j^m = M_m.

    Arguments:
        nodes: The r_j, distinct and not 0, shape (q,), in units of the step: r = 1 is its end, r < 0 the past.
        m: M_1 .. M_q, shape (q,).

    >>> weights(torch.tensor([-1.0]), torch.tensor([0.5])).tolist()  # Adams-Bashforth of order 2: (3 f_0 - f_1) / 2
    [-0.5]
    """
    powers = torch.arange(1, len(nodes) + 1, dtype=nodes.dtype).unsqueeze(1)
    return torch.linalg.solve(nodes.unsqueeze(0) ** powers, m)


def combine(total: Tensor, scale: Tensor, c: Tensor, newest: Tensor, others: Sequence[Tensor]) -> Tensor:
    """Return total + scale sum_j c_j (P_j - P_0)."""
    for cj, value in zip(c, others):
        total = total + like(scale * cj, total) * (value - newest)
    return total


def exponential(
    x: Tensor,
    x0: Tensor,
    t: Level,
    s: Level,
    others: Sequence[tuple[Level, Tensor]] = (),
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
        t: Level of shape (), sigma > 0.
        s: Level of shape (), cleaner.
        others: Pairs of level and P there (x0 or noise, as `predict` says); those without a finite lambda are left out.
        predict: Which prediction is the polynomial.
        kind: Moments; see `moments`.
        published: Halve M_2 when two others take part, the factor that published third-order multistep formulas lack.
        eta: Strength of the reverse SDE whose mean is taken; needs `predict` = "x0".

    Returns:
        Images at level s (their mean if eta > 0), the shape of x.
    """
    start = ddim(x, x0, t, s, eta)
    others = [(level, value) for level, value in others if has_log_snr(level)]
    if not others or not has_log_snr(t) or not has_log_snr(s):
        return start
    here = half_log_snr(t)
    step = half_log_snr(s) - here
    m = moments(step * (1 + eta) if predict == "x0" else -step, len(others), kind)
    if published and len(others) == 2:
        m = torch.stack((m[0], m[1] / 2))
    nodes = torch.stack([(half_log_snr(level) - here) / step for level, _ in others])
    newest, scale = (x0, s.alpha) if predict == "x0" else (noise_in(x, x0, t), s.sigma)
    return combine(start, scale, weights(nodes, m), newest, [value for _, value in others])
