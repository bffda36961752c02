"""MeanFlow: learn the mean velocity of a whole step, and so make an image in one call.

On the straight line x_t = (1 - t) x0 + t n the velocity is v = E[n - x0 | x_t], what flow matching learns. A step from
t to r < t needs its mean along the walk,

    u(x_t, r, t) = 1 / (t - r) times the integral of v over [r, t],        x_r = x_t - (t - r) u.

Differentiating (t - r) u along the walk, where d/dt = v . grad_x + partial_t, gives the MeanFlow identity

    u = v - (t - r) du/dt,        du/dt = v . grad_x u + partial_t u,

with no integral in it: du/dt is one forward-mode derivative (`torch.func.jvp`) of the network in the direction
(v, 0, 1) of (x, r, t). The loss is w |u - stop(v - (t - r) du/dt)|^2 with n - x0 in the place of v. With r = t it is
flow matching, and the network told no step is a flow-matching model that any sampler walks.

The network answers u in the place of the velocity (target=flow), so D = x_t - t u, and the step of DDIM from t to r
with this D is x_t - (t - r) u: `ddim` samples it in as few calls as wanted, and guidance wraps D as ever.

Guidance can be trained in, so that it costs no second call (eqs. 17-21). The velocity is replaced by

    v' = w v + mix u(x_t, t, t; label) + (1 - w - mix) u(x_t, t, t; none),

whose effective weight, when the network has learned it, is w / (1 - mix).

The weight is stop(1 / (|.|^2 + c)^power) of each image's own squared error times that of the recipe; power = 0 leaves
the recipe's alone.

References:
    Geng, Deng, Bai, Kolter, He. Mean Flows for One-step Generative Modeling. 2025, eqs. (6), (9)-(11), (19)-(22).
    https://arxiv.org/abs/2505.13447
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from sfumato.core import noise
from sfumato.core.bounds import Few, Fraction, Positive, Share
from sfumato.core.condition import NULL, part_of
from sfumato.core.denoiser import Preconditioned, Target
from sfumato.core.level import Level, like
from sfumato.objectives._noising import Loss, Noising, squared_error

TRAINS = "denoiser"
JUMPS = True  # what it trains learns whole steps

Velocity = Callable[[Tensor, Level], Tensor]  # (x, level, whose `to` says r) -> u


def meanflow(
    draw: Callable[[Tensor], Level],
    weighting: Callable[[Level, Target], Tensor],
    seed: int,
    batch: int,
    target: Target | None = None,
    steps: Share = 0.25,
    power: Few = 1.0,
    c: Positive = 1e-3,
    w: Few = 1.0,
    mix: Fraction = 0.0,
    label_dropout: Share = 0.1,
    stratified: bool = True,
) -> Callable[..., Loss]:
    """Make MeanFlow's loss of the mean velocity over a step between two drawn levels.

    Arguments:
        draw: Quantile function of both levels: u (B,) in (0, 1) -> Level (B,); the noisier is t, the cleaner r.
        weighting: (level, target) -> weight of |D - x0|^2 at t, shape (B,); flow is 1 / t^2, that of |u|^2.
        seed: Seed of the run.
        batch: Global batch size, for stratification.
        target: What the network is asked for; only flow makes its output a velocity.
        steps: Share of the images with r < t, in [0, 1]; for the others r = t.
        power: Exponent of the adaptive weight, >= 0; 0 for none.
        c: Added to the squared error in it, > 0.
        w: Weight of the data's velocity in guidance that is trained in, >= 1; 1 for no guidance if mix is 0.
        mix: Weight of the network's own conditional velocity in it, in [0, 1).
        label_dropout: Probability that an image is shown without its label.
        stratified: Spread the batch's levels t evenly over the quantiles of the draw.

    Returns:
        A function of denoiser, x0 (B, C, H, W), label int64 (B,) or None, positions int64 (B,) and augmentation labels
        or None, giving a `Loss` with the part "error", the squared error before the adaptive weight.

    Raises:
        ValueError: If an option is out of range, or the target is not flow.
    """
    if not 0 <= steps <= 1 or power < 0 or not c > 0 or not 0 <= mix < 1 or not w >= 0:
        raise ValueError(
            "meanflow needs steps in [0, 1], power >= 0, c > 0, w >= 0 and mix in [0, 1); got "
            f"{steps:g}, {power:g}, {c:g}, {w:g} and {mix:g}."
        )
    asked = None if target is None else [float(part) for part in target(Level.of(0.5, 0.5))]
    if asked not in (None, [-1.0, 1.0]):
        raise ValueError(
            "objective=meanflow learns a velocity, n - x0, and this target is another one. Set target=flow."
        )
    noising = Noising(draw, seed, batch, label_dropout, stratified)
    guided = w != 1 or mix != 0

    def loss(
        denoiser: Preconditioned, x0: Tensor, label: Tensor | None, positions: Tensor, augment: Tensor | None = None
    ) -> Loss:
        level, n = step(noising, positions, steps), noising.noise(x0, positions)
        told = part_of(noising.label(label, positions), "label")
        x, v = level.noisy(x0, n), n - x0
        if guided and told is not None:
            with torch.no_grad():
                v = torch.lerp(v, _guided(denoiser, x, level, v, told, augment, w, mix), _labelled(told, v))
        f, _ = denoiser.raw(x, level, told, augment)
        goal = n - v if guided else x0  # the clean image at which the velocity is v
        goal = goal + like(_span(level), x) * _rate(denoiser, x, level, v, told, augment)
        error = squared_error(denoiser, f, goal, n, level, weighting, "sum")
        each = error * (error.detach() + c) ** -power
        return Loss(each, level, {"error": error.detach()})

    return loss


def step(noising: Noising, positions: Tensor, share: float) -> Level:
    """Return the step of each image on the straight line: a level t with r <= t in its `to`, shape (B,).

    Arguments:
        noising: Says the draw and the seed.
        positions: Global position of each image, int64 (B,).
        share: How many of the images have r < t.
    """
    first = _time(noising.levels(positions))
    other = _time(noising.draw(noise.uniform(positions, seed=noising.seed, purpose="second-level")))
    moves = noise.uniform(positions, seed=noising.seed, purpose="step") < share
    t = torch.where(moves, torch.maximum(first, other), first)
    return _on_line(t).towards(_on_line(torch.where(moves, torch.minimum(first, other), first)))


def derivative(u: Velocity, x: Tensor, level: Level, v: Tensor) -> Tensor:
    """Return du/dt along the walk, the derivative of u in the direction (v, 0, 1) of (x, r, t), the shape of x.

    Arguments:
        u: The mean velocity of a step.
        x: Noisy images at t, (B, ...).
        level: t, shape () or (B,), with r in its `to`.
        v: The velocity at t, the shape of x.

    Raises:
        ValueError: If the level does not say where the step ends, or r > t.
    """
    if level.to is None:
        raise ValueError("The step of a mean velocity ends at Level.to; this level has none.")
    t, end = _time(level), level.to
    if bool((_time(end) > t).any()):
        raise ValueError("A step goes from t to a cleaner r <= t; got r > t.")
    along = torch.func.jvp(lambda x, t: u(x, _on_line(t).towards(end)), (x, t), (v, torch.ones_like(t)))
    return along[1]


def _rate(
    denoiser: Preconditioned, x: Tensor, level: Level, v: Tensor, label: Tensor | None, augment: Tensor | None
) -> Tensor:
    """Return du/dt of the network where a step moves and 0 elsewhere, without a gradient."""
    rate = torch.zeros_like(x)
    moves = (_span(level) > 0).nonzero().flatten()
    if not len(moves):
        return rate
    here = moves.to(x.device)
    told, changed = (None if rows is None else rows[here] for rows in (label, augment))
    assert level.to is not None
    chosen = level[moves].towards(level.to[moves])
    with torch.no_grad():
        rate[here] = derivative(
            lambda x, level: denoiser.raw(x, level, told, changed)[0], x[here].contiguous(), chosen, v[here]
        )
    return rate


def _guided(
    denoiser: Preconditioned,
    x: Tensor,
    level: Level,
    v: Tensor,
    label: Tensor,
    augment: Tensor | None,
    w: float,
    mix: float,
) -> Tensor:
    """Return the velocity v' of guidance that is trained in, from the network's own at r = t."""
    now = Level(level.alpha, level.sigma)
    without, _ = denoiser.raw(x, now, torch.full_like(label, NULL), augment)
    own = denoiser.raw(x, now, label, augment)[0] if mix else 0.0
    return w * v + mix * own + (1 - w - mix) * without


def _labelled(label: Tensor, x: Tensor) -> Tensor:
    """Return 1 for images that kept their label and 0 for the others, to multiply x."""
    return (label != NULL).to(x).reshape(-1, *(1,) * (x.ndim - 1)).expand_as(x)


def _time(level: Level) -> Tensor:
    """Return t on the straight line of a level of any scale."""
    return level.sigma / (level.alpha + level.sigma)


def _on_line(t: Tensor) -> Level:
    """Return the level of the straight line at t."""
    return Level(1 - t, t)


def _span(level: Level) -> Tensor:
    """Return t - r, 0 for a level that does not say where its step ends."""
    return torch.zeros_like(level.sigma) if level.to is None else level.sigma - level.to.sigma
