"""Averages of any length after training, from snapshots of two.

A power-function average (`training.ema`) at time t weights the weights of time tau in [0, t] by the density

    p(tau) = (gamma + 1) tau^gamma / t^(gamma + 1)

A run that keeps snapshots of a few such averages at a few times holds functions that span, nearly, every other
profile: the wanted one is fitted by the combination of least squared error that weighs 1 in all,

    minimise |sum_i w_i p_i - p|^2  subject to  sum_i w_i = 1,

and the same combination of the stored weights is the wanted average, since averaging is linear. With gammas a, b and
times s <= t the inner products are

    <p_a,s , p_b,t> = (a + 1)(b + 1) / (a + b + 1) * (s / t)^b / t.

The remaining error |sum w_i p_i - p| / |p| says how far a width can be trusted: it is small between the widths kept and
somewhat beyond, and grows when a width is much narrower than the distance of snapshots.

References:
    Karras et al. Analyzing and Improving the Training Dynamics of Diffusion Models. 2024, section 3 and appendix C.
    https://arxiv.org/abs/2312.02696
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from sfumato.core.weights import hash_tensors
from sfumato.runs import checkpoint
from sfumato.runs.recipe import Ema, RecipeError

GROUP = "ema-power-"  # file of a power-function average in a snapshot
WORST = 0.3  # relative error of a fit above which a width is refused


def spelled(value: float, usual: str) -> str:
    """Return a number as a name spells it: as usual where that is exact, with all its digits elsewhere.

    >>> spelled(0.1, "0.10"), spelled(0.075, "0.07")
    ('0.10', '0.075')
    """
    return usual if float(usual) == value else repr(float(value))


def power_name(width: float) -> str:
    """Return the name of a power-function average that is kept while training."""
    return f"power-{spelled(width, f'{width:.2f}')}"


def half_life_name(million_images: float) -> str:
    """Return the name of an exponential average."""
    return f"half-{spelled(million_images, f'{million_images:g}')}"


def names_of(ema: Ema) -> dict[str, str]:
    """Return the names of the averages that a recipe keeps, each with the one that earlier versions gave it.

    Those rounded: of several averages of one rounded name they kept the last, so the others had none ("").

    >>> names_of(Ema(power=(0.05, 0.101, 0.104), half_life=(0.5,)))
    {'power-0.05': 'power-0.05', 'power-0.101': '', 'power-0.104': 'power-0.10', 'half-0.5': 'half-0.5'}
    """
    found = {power_name(w): f"power-{w:.2f}" for w in ema.power}
    found |= {half_life_name(h): f"half-{h:g}" for h in ema.half_life}
    last = {earlier: name for name, earlier in found.items()}
    return {name: earlier if last[earlier] == name else "" for name, earlier in found.items()}


def spellings(use: str, ema: Ema) -> tuple[str, ...]:
    """Return the names under which an average may be kept, the exact one first.

    >>> spellings("power-0.07", Ema(power=(0.075, 0.125))), spellings("power-0.1", Ema(power=(0.10,)))
    (('power-0.07', 'power-0.075'), ('power-0.1', 'power-0.10'))
    >>> spellings("post-8e-2", Ema())
    ('post-8e-2', 'post-0.080')
    """
    known = names_of(ema)
    others = [known[use]] if use in known else [name for name, earlier in known.items() if earlier == use]
    return tuple(dict.fromkeys([use, *filter(None, others), canonical(use)]))


def canonical(use: str) -> str:
    """Return the name of an average with its number as names spell it; another name as it is.

    >>> canonical("power-.1"), canonical("post-8e-2"), canonical("raw")
    ('power-0.10', 'post-0.080', 'raw')
    """
    kind, _, number = use.partition("-")
    try:
        return {"power": power_name, "half": half_life_name, "post": name_of}[kind](float(number))
    except (KeyError, ValueError):
        return use


def width_of(name: str, powers: Sequence[float]) -> float:
    """Return the width that a snapshot's average has, where its name may be rounded.

    Arguments:
        name: The number in its name.
        powers: The widths that the run kept.
    """
    exact = float(name)
    return exact if exact in powers else next((w for w in reversed(powers) if f"{w:.2f}" == name), exact)


@dataclass(frozen=True, slots=True)
class Profile:
    """The weight that an average gives to the past.

    Attributes:
        width: sigma_rel.
        seen: Images seen when it was taken, > 0.
    """

    width: float
    seen: int


def gamma_of(sigma_rel: float) -> float:
    """Invert ``sigma_rel(gamma)``: the largest real root of the cubic in EDM2's appendix C.

    >>> round(gamma_of(0.10), 2), round(gamma_of(0.05), 2)
    (6.94, 16.97)
    """
    if not 0 < sigma_rel < 0.28:
        raise RecipeError(f"The relative width of an average must lie in (0, 0.28); got {sigma_rel}.")
    t = sigma_rel**-2
    return float(np.roots([1, 7, 16 - t, 12 - t]).real.max())


def inner(a: Sequence[Profile], b: Sequence[Profile], unit: int) -> np.ndarray:
    """Return the inner products of profiles, shape (len(a), len(b)), with time in units of `unit` images."""
    gammas = [np.array([gamma_of(p.width) for p in profiles]) for profiles in (a, b)]
    times = [np.array([p.seen / unit for p in profiles]) for profiles in (a, b)]
    ga, gb = gammas[0][:, None], gammas[1][None, :]
    ta, tb = times[0][:, None], times[1][None, :]
    later, power = np.maximum(ta, tb), np.where(ta <= tb, gb, ga)
    return (ga + 1) * (gb + 1) / (ga + gb + 1) * (np.minimum(ta, tb) / later) ** power / later


def fit(kept: Sequence[Profile], wanted: Profile) -> tuple[np.ndarray, float]:
    """Return the weights of kept averages that make the wanted one, and the relative error of its profile.

    Arguments:
        kept: Profiles of the snapshots.
        wanted: The profile to make; its time must not lie beyond the last snapshot.

    Raises:
        RecipeError: If nothing is kept.

    >>> weights, error = fit([Profile(0.05, 100), Profile(0.10, 100)], Profile(0.10, 100))
    >>> weights.round(6).tolist(), error < 1e-6
    ([0.0, 1.0], True)
    """
    if not kept:
        raise RecipeError("There are no snapshots to make an average from. Train with ema.snapshots=16, for example.")
    n, unit = len(kept), wanted.seen
    gram, target = inner(kept, kept, unit), inner(kept, [wanted], unit)[:, 0]
    system = np.ones((n + 1, n + 1))
    system[:n, :n], system[n, n] = gram, 0.0
    weights = np.linalg.lstsq(system, np.append(target, 1.0), rcond=1e-13)[0][:n]
    size = float(inner([wanted], [wanted], unit)[0, 0])
    rest = float(weights @ gram @ weights - 2 * weights @ target) + size
    return weights, (max(0.0, rest) / size) ** 0.5


@dataclass(frozen=True)
class Fitted:
    """An average made after training.

    Attributes:
        tensors: The state dict of the network.
        error: Relative error of its profile, see `fit`.
        seen: Images seen at its end.
        step: The training step at its end.
        snapshots: How many were combined.
        belongs: The fingerprint of the run.
    """

    tensors: dict[str, Tensor]
    error: float
    seen: int
    step: int
    snapshots: int
    belongs: Mapping[str, str]


def snapshots(run: Path) -> list[int]:
    """Return the steps at which a run kept its averages, at least one.

    Arguments:
        run: The run's directory.

    Raises:
        RecipeError: If there is none.
    """
    if not (steps := checkpoint.steps(run / "snapshots")):
        raise RecipeError(f"{run} has no snapshots. Train with ema.snapshots=16, for example, to keep them.")
    return steps


def reconstruct(run: Path, width: float, mark: str = "") -> Fitted:
    """Make the average of a width at the end of a run from its snapshots.

    Arguments:
        run: The run's directory.
        width: sigma_rel, in (0, 0.28).
        mark: Of the run (`Run.mark`); "" for any.

    Raises:
        RecipeError: If there are no snapshots, or they cannot make this width; the message says what they can.
        CheckpointError: If a snapshot is damaged or of another run.
    """
    folder, steps = run / "snapshots", snapshots(run)
    profiles, groups = [], []
    for step in steps:
        snapshot = checkpoint.load(folder / f"step-{step}", ())
        checkpoint.holding("averages", "seen")(snapshot)
        checkpoint.of_run(mark)(snapshot)
        state = snapshot.state
        powers = state.get("recipe", {}).get("ema", {}).get("power", ())
        for name in state["averages"]:
            profiles.append(Profile(width_of(name, powers), state["seen"]))
            groups.append((step, GROUP + name))
    end = profiles[-1].seen
    weights, error = fit(profiles, Profile(width, end))
    if error > WORST:
        raise RecipeError(
            f"The snapshots of {run} cannot make an average of width {width:g}: its profile would be off by "
            f"{100 * error:.0f}%. They hold widths {', '.join(sorted({f'{p.width:g}' for p in profiles}))} at "
            f"{len(steps)} moments; take a wider one, or train with more ema.snapshots."
        )
    sums: dict[str, Tensor] = {}
    for step in steps:
        wanted = [(g, w) for (s, g), w in zip(groups, weights) if s == step]
        saved = checkpoint.load(folder / f"step-{step}", tuple(g for g, _ in wanted))
        for group, weight in wanted:
            for key, value in saved.tensors[group].items():
                if not value.is_floating_point():
                    sums[key] = value
                elif key in sums:
                    sums[key].add_(value.double(), alpha=float(weight))
                else:
                    sums[key] = value.double() * float(weight)
    tensors = {k: v.float() if v.is_floating_point() else v for k, v in sums.items()}
    return Fitted(tensors, error, end, steps[-1], len(steps), state["belongs"])


def name_of(width: float) -> str:
    """Return the name under which an average of a width is used: `--use post-0.080`."""
    return f"post-{spelled(width, f'{width:.3f}')}"


def store(run: Path, width: float, made: Fitted, selected: Mapping[str, Any] | None = None) -> str:
    """Write an average into RUN/averages and return its name.

    One that was chosen among others stays marked as chosen when it is made again.

    Arguments:
        run: The run's directory.
        width: Its width.
        made: The average.
        selected: How it was chosen among others, if it was: metric, reference, candidates.
    """
    name = name_of(width)
    state: dict[str, Any] = {"seen": made.seen, "step": made.step, "width": width}
    state |= {"error": made.error, "snapshots": made.snapshots}
    folder = run / "averages" / name
    with contextlib.suppress(checkpoint.CheckpointError):
        before = checkpoint.load(folder / f"step-{made.step}")
        if selected is None and before.digest("network") == hash_tensors(made.tensors):
            selected = before.state.get("selected")
    state |= {"selected": dict(selected)} if selected else {}
    checkpoint.save(folder, made.step, {"network": made.tensors}, state, fingerprint=made.belongs)
    for step in checkpoint.steps(folder):
        if step != made.step:  # of what the run was before
            shutil.rmtree(folder / f"step-{step}")
    return name


def stored(run: Path) -> list[str]:
    """Return the names of the averages made after training."""
    return sorted(p.name for p in (run / "averages").glob("*") if p.is_dir() and checkpoint.steps(p))


def load(run: Path, name: str, mark: str = "") -> checkpoint.Checkpoint:
    """Read an average made after training.

    Arguments:
        run: The run's directory.
        name: As `store` returned it.
        mark: Of the run (`Run.mark`); "" for any.

    Raises:
        RecipeError: If there is none of this name.
        CheckpointError: If it is damaged or of another run.
    """
    found = checkpoint.latest(run / "averages" / name, fits=checkpoint.of_run(mark, "network", "seen", "step"))
    if found is None:
        raise RecipeError(f"{run} has no average {name!r}. Make it with: sfumato ema {run} --width {name[5:] or '0.1'}")
    return found
