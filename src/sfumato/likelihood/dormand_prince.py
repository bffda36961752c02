"""An adaptive fifth-order Runge-Kutta walk in which every image has a step size of its own.

The Dormand-Prince pair evaluates seven slopes per step (six new ones: the last is the first of the next step) and
yields a fifth-order endpoint together with a fourth-order one; their difference estimates the error. The step is
accepted where

    E = rms(error / (atol + rtol max(|y|, |y_new|)))  <=  1,        h <- h clamp(0.9 E^(-1/5), 0.2, 10).

A controller shared by a batch makes an image's answer depend on its neighbours; here each image carries its own u, h
and verdict. Rows that have arrived leave the batch, so nobody waits for the stiffest image.

Beside y every row integrates a scalar l (the log-determinant of a likelihood), whose error may be at most that of
n such elements together, n = elements of y: it is l / n that is reported, as bits per dimension.

References:
    Dormand, Prince. A Family of Embedded Runge-Kutta Formulae. 1980. https://doi.org/10.1016/0771-050X(80)90013-3
    Hairer, Norsett, Wanner. Solving Ordinary Differential Equations I. 1993, section II.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from sfumato.core.level import like

ORDER = 5

_C = (0.0, 1 / 5, 3 / 10, 4 / 5, 8 / 9, 1.0, 1.0)
_A = (
    (),
    (1 / 5,),
    (3 / 40, 9 / 40),
    (44 / 45, -56 / 15, 32 / 9),
    (19372 / 6561, -25360 / 2187, 64448 / 6561, -212 / 729),
    (9017 / 3168, -355 / 33, 46732 / 5247, 49 / 176, -5103 / 18656),
    (35 / 384, 0.0, 500 / 1113, 125 / 192, -2187 / 6784, 11 / 84),
)
_E = (71 / 57600, 0.0, -71 / 16695, 71 / 1920, -17253 / 339200, 22 / 525, -1 / 40)  # fifth minus fourth order

# (u, y, rows) -> (dy/du, dl/du): u float64 (R,), y (R, ...), rows int64 (R,) which images these are, dl float64 (R,)
Slope = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True, eq=False)
class Walk:
    """The state of every image.

    Attributes:
        u: Coordinate, float64, shape (B,).
        y: State, shape (B, ...).
        l: Integrated scalar, float64 on the CPU, shape (B,).
        nfe: Slopes evaluated so far, int64, shape (B,).
        done: Whether each image has arrived, bool, shape (B,).
    """

    u: Tensor
    y: Tensor
    l: Tensor
    nfe: Tensor
    done: Tensor


def _rms(y: Tensor) -> Tensor:
    """Root mean square per row, float64 on the CPU, shape (R,)."""
    return y.flatten(1).square().mean(1).sqrt().to("cpu", torch.float64)


def _sum(weights: tuple[float, ...], slopes: list[Tensor]) -> Tensor:
    total = weights[0] * slopes[0]
    for w, k in zip(weights[1:], slopes[1:]):
        if w:
            total = total + w * k
    return total


def walk(
    slope: Slope,
    y: Tensor,
    start: float,
    stop: float,
    *,
    rtol: float = 1e-5,
    atol: float = 1e-5,
    max_steps: int = 10_000,
) -> Iterator[Walk]:
    """Integrate dy/du and dl/du from `start` to `stop`, yielding after every round of steps.

    Arguments:
        slope: Slopes of y and l at every row; it must not mix rows.
        y: Start, shape (B, ...).
        start: u at the start.
        stop: u at the end, on either side of it.
        rtol: Relative tolerance per element, > 0.
        atol: Absolute tolerance per element, > 0.
        max_steps: Rounds after which the walk gives up.

    Yields:
        The state after each round, in which every unfinished image tried one step; the last has all done.

    Raises:
        ValueError: If a tolerance is not positive.
        ArithmeticError: If a slope is not finite, a step size underflows, or `max_steps` rounds do not suffice.
    """
    if not (rtol > 0 and atol > 0):
        raise ValueError(f"Tolerances must be positive; got rtol = {rtol} and atol = {atol}.")
    batch, size, span = len(y), y[0].numel(), abs(stop - start)
    sign = 1.0 if stop > start else -1.0
    u, l = torch.full((batch,), start, dtype=torch.float64), torch.zeros(batch, dtype=torch.float64)
    nfe, rows = torch.ones(batch, dtype=torch.int64), torch.arange(batch)
    y = y.clone()
    k, dl = slope(u, y, rows)
    speed = _rms(k / (atol + rtol * y.abs()))
    h = (0.01 * _rms(y / (atol + rtol * y.abs())) / speed.clamp(min=1e-12)).clamp(1e-6 * span, 0.1 * span)

    for _ in range(max_steps):
        on = rows.to(y.device)
        here = y[on]
        step = sign * torch.minimum(h, (stop - u[rows]).abs())
        ks, dls = [k], [dl]
        end, end_l = here, l[rows]
        for stage in range(1, 7):
            end = here + like(step, here) * _sum(_A[stage], ks)
            end_l = l[rows] + step * _sum(_A[stage], dls)
            k_new, dl_new = slope(u[rows] + _C[stage] * step, end, rows)
            ks.append(k_new)
            dls.append(dl_new)
        nfe[rows] += 6
        scale = atol + rtol * torch.maximum(here.abs(), end.abs())
        error = step.abs() * _rms(_sum(_E, ks) / scale)
        scale_l = size * atol + rtol * torch.maximum(l[rows].abs(), end_l.abs())
        error = torch.maximum(error, (step * _sum(_E, dls)).abs() / scale_l)
        if not bool(error.isfinite().all()):
            bad = rows[~error.isfinite()].tolist()
            raise ArithmeticError(f"The slope of images {bad[:8]} is not finite near u = {u[bad[0]]:.6g}.")

        good = error <= 1
        arrived = good & (step.abs() >= (stop - u[rows]).abs())
        on_good = good.to(y.device)
        y[on[on_good]] = end[on_good]
        l[rows[good]] = end_l[good]
        u[rows[good]] += step[good]
        u[rows[arrived]] = stop
        h = step.abs() * (0.9 * error.clamp(min=1e-10) ** (-1 / ORDER)).clamp(0.2, 10.0)
        gate = on_good.reshape(-1, *(1,) * (k.ndim - 1))
        k, dl = torch.where(gate, ks[-1], k), torch.where(good, dls[-1], dl)

        stay = ~arrived
        rows, h, k, dl = rows[stay], h[stay], k[stay.to(y.device)], dl[stay]
        done = torch.ones(batch, dtype=torch.bool).index_fill(0, rows, False)
        yield Walk(u.clone(), y, l.clone(), nfe.clone(), done)
        if not len(rows):
            return
        if bool((h < 1e-14 * span).any()):
            raise ArithmeticError("A step size underflowed; loosen rtol and atol, or start farther from the clean end.")
    raise ArithmeticError(f"{len(rows)} of {batch} images did not arrive within {max_steps} steps; loosen rtol, atol.")
