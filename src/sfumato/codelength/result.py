"""From a run to bits per dimension: what is measured, and what is written down.

Two numbers that never share a column:

    bits/dim[VLB]   the variational bound on the code length of the exact pixels, L_T + sum of KL + L_0
    bits/dim[ODE]   the density of dequantised images along the probability-flow ODE

each on equally many test and training images, so that the gap between the splits means something. A value is a mean
over images and its interval is Student's, over images; the 20 leave-one-group-out means travel along, so that two runs
measured on the same images are compared in pairs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.codelength.chain import Chain, chain_of, continuous, on_path, own_gauge, span
from sfumato.codelength.measure import Flow, Images, OdePath, measure_bound, measure_ode
from sfumato.core.find import nearest
from sfumato.core.gauge import named
from sfumato.core.writing import replace_json
from sfumato.data.dataset import Dataset
from sfumato.evaluation import reference_of
from sfumato.evaluation.cache import source_hash
from sfumato.evaluation.real import content_of
from sfumato.evaluation.result import facts_of_run, in_lines
from sfumato.likelihood.codec.rate import rate_distortion
from sfumato.likelihood.vlb import Bound, mean_and_error
from sfumato.metrics import rules
from sfumato.metrics.flags import flagged
from sfumato.metrics.jackknife import GROUPS, student
from sfumato.metrics.protocol import EvalProtocol, canonical
from sfumato.metrics.score import Score
from sfumato.processes.machine import computing_on
from sfumato.progress import bar_of
from sfumato.runs.conditions import of_real
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run

PARTS = ("vlb", "ode")
SPLITS = ("test", "train")
POINTS = 100  # of a curve in a result
IDENTITY = 1e-3  # bits/dim by which rate + L_0 may miss the total


@dataclass(frozen=True)
class Asked:
    """Settings of a measurement.

    Attributes:
        n: Number of images per split, >= 2.
        splits: Names of the splits to measure.
        parts: Quantities to measure, names in `PARTS`.
        seeds: Noise seeds; each image is measured with every one and averaged.
        steps: Steps of the chain; None for the run's own.
        near: sigma / alpha at the cleanest level of a chosen chain; None for the default.
        variance: Variance of p; None for the run's own.
        labels: Whether a conditional model is told each image's class.
        rtol: Tolerance of the ODE per image, in [1e-8, 0.1].
        gauge: Name of the ODE's gauge; None for the run's own.
    """

    n: int
    splits: tuple[str, ...] = SPLITS
    parts: tuple[str, ...] = PARTS
    seeds: tuple[int, ...] = (0,)
    steps: int | None = None
    near: float | None = None
    variance: str | None = None
    labels: bool = True
    rtol: float = 1e-4
    gauge: str | None = None

    def __post_init__(self) -> None:
        if self.n < 2:
            raise ValueError(f"A standard error over images needs n >= 2; got {self.n}.")
        for name in self.parts:
            if name not in PARTS:
                raise ValueError(nearest("part", name, PARTS))
        if not self.parts or not self.splits:
            raise ValueError("Name at least one part and one split to measure.")
        if not 1e-8 <= self.rtol <= 0.1:
            raise ValueError(f"The tolerance of the ODE lies in [1e-8, 0.1]; got {self.rtol:g}.")


@dataclass(frozen=True, eq=False)
class Measured:
    """What one split cost; None for a part that was not asked for."""

    data: Dataset
    bound: Bound | None
    flow: Flow | None

    @property
    def bits(self) -> dict[str, Tensor]:
        """Bits/dim of every image, shape (B,), by what was measured."""
        bound = {} if self.bound is None else {"VLB": self.bound.total}
        return bound | ({} if self.flow is None else {"ODE": self.flow.bits})


def likelihood(
    run: Run,
    asked: Asked,
    *,
    use: str | None = None,
    root: Path | str | None = None,
    device: torch.device | str | None = None,
    command: str = "",
    quiet: bool = False,
) -> tuple[dict[str, Any], Path]:
    """Measure the bits per dimension of real images under a run and write RUN/results/likelihood-*.json.

    Arguments:
        run: A run of any family of denoiser.
        asked: Settings of the measurement.
        use: Name of the average of the weights; None for the recipe's choice.
        root: Folder that holds the datasets; None for the default.
        device: None for the best at hand.
        command: Command line that makes the result again; it is written into the result.
        quiet: Whether to show no progress bar.

    Returns:
        The result and its path. Killed and started again, it goes on after the last finished block.

    Raises:
        ValueError: For a split with fewer images than asked for, or options that do not fit the run.
        LeakageError: If the model was trained on images of a held-out split.
    """
    device = computing_on(device)
    run.require_pixels("The likelihood of a walk (codelength.latents has the bound of latents)")
    recipe = run.recipe
    denoiser = run.denoiser(use, device)
    denoiser.autocast = None  # a low precision would be a noise of its own
    chain = chain_of(run.plan, asked.steps, asked.near, asked.variance)
    splits, flags = measured_sets(run, asked, root)
    told = asked.labels and (recipe.data.told_more or bool(run.plan.classes))
    facts = _facts(run, asked, chain, use, told, device)
    path = file_of(run, asked, facts, splits)
    began = hashlib.sha256(canonical([facts, source_hash()]).encode()).hexdigest()[:8]
    folder = path.with_name(f".{path.stem}-{began}")  # blocks of one source are not mixed with those of another
    measured = {}
    for split, data in splits.items():
        images = Images(data.images, of_real(recipe, data, torch.arange(len(data))) if told else None)
        options: dict[str, Any] = {"seeds": asked.seeds, "device": device, "folder": folder / split}
        batch, times = min(64, recipe.sample.batch), len(images) * len(asked.seeds)
        bound = flow = None
        if "vlb" in asked.parts:
            with bar_of(times * (len(chain.grid) - 1), "eval", f"bound, {split}", quiet=quiet, unit_scale=True) as bar:
                bound = measure_bound(denoiser, images, chain, batch=batch, progress=bar.update, **options)
        if "ode" in asked.parts:
            with bar_of(times, "img", f"ODE, {split}", quiet=quiet) as bar:
                everywhere, walk = continuous(denoiser), ode_path(run, asked)
                flow = measure_ode(everywhere, images, walk, batch=min(16, batch), progress=bar.update, **options)
        measured[split] = Measured(data, bound, flow)
    tree = result(run.path.name, recipe.name, measured, facts, flags, command)
    replace_json(path, tree, else_say=partial(in_lines, tree))
    _sweep_up(folder)
    return tree, path


def measured_sets(
    run: Run, asked: Asked, root: Path | str | None
) -> tuple[dict[str, Dataset], dict[str, tuple[str, ...]]]:
    """Return the images of each split that are measured, the same for every run, and the flags of their numbers."""
    run.place("results")
    training, sets = load_data(run.recipe, "train", root), {}
    for split in asked.splits:
        data = load_data(replace(run.recipe, data=replace(run.recipe.data, flip=False)), split, root)
        if asked.n > len(data):
            raise ValueError(
                f"Split {split!r} of {data.name} has {len(data)} images and {asked.n} were asked for. Both splits are "
                f"measured on equally many: give n <= {len(data)}, or one split that is larger."
            )
        sets[split] = data.take(asked.n, seed=0)
    return sets, {split: flags_of(run, data, training) for split, data in sets.items()}


def file_of(run: Run, asked: Asked, facts: Mapping[str, Any], sets: Mapping[str, Dataset]) -> Path:
    """Return the file of a result: measured in the same way, on the same images, under the same labels."""
    content = {name: [data.index_hash, content_of(data)] for name, data in sets.items()}
    key = hashlib.sha256(canonical([asdict(asked), facts, content]).encode()).hexdigest()[:8]
    return run.path / "results" / f"likelihood-{'-'.join(sets)}-n{asked.n}-{key}.json"


def flags_of(run: Run, data: Dataset, training: Dataset) -> tuple[str, ...]:
    """Return the flags of a split's numbers; what was trained on is refused in a held-out one."""
    found = list(rules.check_leakage(reference_of(data), data.image_hashes, training.image_hashes))
    if run.about.get("fingerprint", {}).get("data") not in (None, training.content_hash):
        found.append(flagged("other-data"))
    return tuple(found)


def facts_of(run: Run, asked: Asked, use: str | None, told: bool, device: torch.device) -> dict[str, Any]:
    """Return the provenance that all bits of a run have in common."""
    labels = "each image's own" if told else "none"
    return facts_of_run(run, use, device) | {"precision": "fp32", "labels": labels, "seeds": list(asked.seeds)}


def _facts(run: Run, asked: Asked, chain: Chain, use: str | None, told: bool, device: torch.device) -> dict[str, Any]:
    """Return the provenance of a result."""
    facts = facts_of(run, asked, use, told, device)
    if "vlb" in asked.parts:
        facts |= {"chain": chain.words, "nfe": len(chain.grid) - 1, "variance": chain.variance}
    if "ode" in asked.parts:
        path = ode_path(run, asked)
        reach = f"sigma/alpha {float(path.near.nsr):g} to {float(path.far.nsr):g}"
        facts["ode"] = f"{reach} in gauge {path.gauge.name}, tolerance {path.rtol:g} per image"
    return facts


def ode_path(run: Run, asked: Asked) -> OdePath:
    """Return where the ODE of a run is walked: over all levels it was trained on."""
    gauge = own_gauge(run.plan) if asked.gauge is None else named(asked.gauge)
    near, far = (on_path(gauge, torch.tensor(nsr, dtype=torch.float64)) for nsr in span(run.plan))
    return OdePath(gauge, near, far, asked.rtol)


def _sweep_up(folder: Path) -> None:
    """Remove the blocks of a finished measurement."""
    for file in folder.glob("*/*.npz"):
        file.unlink()
    for left in [*folder.glob("*"), folder]:
        if left.is_dir() and not any(left.iterdir()):
            left.rmdir()


def result(
    run: str,
    recipe: str,
    measured: Mapping[str, Measured],
    facts: Mapping[str, Any],
    flags: Mapping[str, tuple[str, ...]],
    command: str = "",
) -> dict[str, Any]:
    """Return what was measured as a result: scores, tables and curves of `report.results`.

    Arguments:
        run: Name of the run.
        recipe: Name of the run's recipe.
        measured: Bits of each split, by the split's name.
        facts: Provenance of the numbers: weights, levels, machine.
        flags: Warnings about the numbers of each split, by the split's name.
        command: Command line that makes the result again; empty for none.

    Raises:
        ArithmeticError: If rate and L_0 do not add up to the bound.
    """
    scores = [
        score_of(kind, bits, found.data, facts, flags[split])
        for split, found in measured.items()
        for kind, bits in found.bits.items()
    ]
    tables = {
        "likelihood": [_terms(split, found.bound) for split, found in measured.items() if found.bound is not None],
        "likelihood along the ODE": [
            _along(split, found.flow) for split, found in measured.items() if found.flow is not None
        ],
        "likelihood gap": _gap({split: found.bits for split, found in measured.items()}),
    }
    bounds = {split: found.bound for split, found in measured.items() if found.bound is not None}
    curves = {"rate_distortion": _rate_curve(bounds), "bits_by_level": _level_curve(bounds)} if bounds else {}
    tree: dict[str, Any] = {
        "run": run,
        "recipe": recipe,
        "scores": [s.to_json() for s in scores],
        "provenance": dict(facts),
        "tables": {name: rows for name, rows in tables.items() if rows},
        "curves": curves,
        "per_image": {
            split: {kind.lower(): [round(v, 5) for v in bits.tolist()] for kind, bits in found.bits.items()}
            for split, found in measured.items()
        },
    }
    return tree | ({"command": command} if command else {})


def score_of(kind: str, bits: Tensor, data: Dataset, facts: Mapping[str, Any], flags: tuple[str, ...]) -> Score:
    """Return the mean over images as a score with its protocol."""
    how = {
        "VLB": ("mean over images of L_T + sum of KL + L_0, discretised Gaussian decoder", {"bins": "codes"}),
        "ODE": (
            "mean over images of -log2 p along the probability-flow ODE, Hutchinson's trace, uniform "
            "dequantisation, offset included",
            {"bins": "centred"},
        ),
        "latent": (
            "mean over images of -log2 P(x|z) - H(q(z|x)) + the denoiser's bound on -log2 p(z), one z a seed, "
            "discretised Gaussian decoder",
            {"bins": "codes"},
        ),
    }
    mean, error = mean_and_error(bits)
    n = len(bits)
    group = torch.arange(n) % min(GROUPS, n)
    left_out = tuple(float(bits[group != g].mean()) for g in range(int(group.max()) + 1))
    reach = student(0.975, n - 1) * error
    protocol = EvalProtocol(
        metric=f"bits/dim {kind}", version=1, extractor="none", weights_hash="", features={},
        reference=reference_of(data), n=n, class_prior=f"labels: {facts['labels']}", estimator=how[kind][0],
        quantisation="none", options=how[kind][1], provenance=dict(facts),
    )  # fmt: skip
    name = f"bits/dim[{kind}]"
    return Score(name, mean, (mean - reach, mean + reach), error, mean, n, n, protocol, None, flags, left_out)


def cell(values: Tensor) -> dict[str, Any]:
    """Return a mean over images with its interval, as a value of a table."""
    mean, error = mean_and_error(values)
    reach = student(0.975, len(values) - 1) * error
    return {"value": mean, "interval": [mean - reach, mean + reach]}


def _terms(split: str, bound: Bound) -> dict[str, Any]:
    missed = float((bound.rate + bound.decoder - bound.total).abs().max())
    curve = rate_distortion(bound)
    missed = max(missed, abs(float(curve.rate[-1] + bound.decoder.mean() - bound.total.mean())))
    if not missed < IDENTITY:
        raise ArithmeticError(f"Rate and L_0 miss the bound by {missed:g} bits/dim, more than {IDENTITY:g}.")
    return {
        "split": split,
        "n": len(bound.total),
        "bits/dim (VLB)": cell(bound.total),
        "L_T": float(bound.prior.mean()),
        "KL terms": cell(bound.terms[:, :-1].sum(1)),
        "L_0": cell(bound.decoder),
        "L_0 share %": round(100 * float(bound.decoder.mean() / bound.total.mean()), 1),
        "RMSE at L_0 (0..255)": float(curve.rmse[-1]),
        "steps": bound.terms.shape[1],
        "|rate + L_0 - total|": missed,
    }


def _along(split: str, flow: Flow) -> dict[str, Any]:
    return {
        "split": split,
        "n": len(flow.bits),
        "bits/dim (ODE)": cell(flow.bits),
        "offset": flow.offset,
        "NFE mean": float(flow.nfe.double().mean()),
        "NFE least": int(flow.nfe.min()),
        "NFE most": int(flow.nfe.max()),
    }


def _gap(bits: Mapping[str, Mapping[str, Tensor]]) -> list[dict[str, Any]]:
    """Return test minus train, whose images differ: errors add in squares."""
    rows = []
    for kind in ("VLB", "ODE"):
        test, train = (bits.get(split, {}).get(kind) for split in ("test", "train"))
        if test is not None and train is not None:
            (a, ea), (b, eb) = mean_and_error(test), mean_and_error(train)
            reach = 1.96 * float(np.hypot(ea, eb))
            rows.append(
                {
                    "gap": f"test - train ({kind})",
                    "n": len(test),
                    "bits/dim": {"value": a - b, "interval": [a - b - reach, a - b + reach]},
                }
            )
    return rows


def _thin(count: int) -> list[int]:
    return sorted({round(i) for i in np.linspace(0, count - 1, min(count, POINTS)).tolist()})


def _band(x: Tensor, y: Tensor, error: Tensor, at: Sequence[int]) -> dict[str, list[float]]:
    rows = list(at)
    named_ = {"x": x[rows], "y": y[rows], "low": (y - 1.96 * error)[rows], "high": (y + 1.96 * error)[rows]}
    return {key: [round(v, 6) for v in values.tolist()] for key, values in named_.items()}


def _rate_curve(bounds: Mapping[str, Bound]) -> dict[str, Any]:
    series, by_time, words = {}, {}, []
    for split, bound in bounds.items():
        curve = rate_distortion(bound)
        at = _thin(len(curve.rate))
        done = torch.arange(len(curve.rate), dtype=torch.float64)
        series[split] = _band(curve.rate, curve.rmse, curve.rmse_error, at)
        by_time[split] = {
            "rate": _band(done, curve.rate, curve.rate_error, at),
            "distortion": _band(done, curve.rmse, curve.rmse_error, at),
        }
        half = int((curve.rate >= curve.rate[-1] / 2).nonzero()[0])
        words.append(
            f"{split}: rate {float(curve.rate[-1]):.2f} at RMSE {float(curve.rmse[-1]):.2f}, half of it by RMSE "
            f"{float(curve.rmse[half]):.1f}; L_0 {float(bound.decoder.mean()):.2f}"
        )
    n = len(next(iter(bounds.values())).total)
    return {
        "series": series,
        "by_time": by_time,
        "caption": f"Bits sent against the distortion of x0-hat, {n} images a split ({'; '.join(words)} bits/dim). "
        "Bands: 95% over images.",
    }


def _level_curve(bounds: Mapping[str, Bound]) -> dict[str, Any]:
    """Return where the bits are spent: bits/dim per unit of ln SNR."""
    series = {}
    for split, bound in bounds.items():
        log_snr = bound.grid.log_snr[:-1]
        gain = (log_snr[1:] - log_snr[:-1]).unsqueeze(0)
        density = bound.terms[:, :-1] / gain
        error = density.std(0, correction=1) / len(density) ** 0.5
        at = _thin(len(log_snr) - 1)
        series[split] = _band((log_snr[1:] + log_snr[:-1]) / 2, density.mean(0), error, at)
    last = {split: round(float(bound.decoder.mean()), 3) for split, bound in bounds.items()}
    return {
        "series": series,
        "caption": "Where the bits are spent; the area under a line is the rate. What is left "
        f"after the last level, L_0, is {', '.join(f'{v} ({k})' for k, v in last.items())} bits/dim.",
    }
