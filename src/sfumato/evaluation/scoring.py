"""Score a run against real images."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from sfumato.core.find import conform
from sfumato.core.reading import read_json
from sfumato.data.dataset import Dataset
from sfumato.evaluation.accuracy import evaluate_classifier
from sfumato.evaluation.findings import Findings, Table, expand, find_asked
from sfumato.evaluation.generated import Output, generate, pixels_of
from sfumato.evaluation.judge import Generated, Judge, each
from sfumato.evaluation.real import cached_features
from sfumato.evaluation.reconstruction import evaluate_autoencoder
from sfumato.evaluation.result import Result
from sfumato.metrics.features import Extractor, stream
from sfumato.metrics.flags import flagged
from sfumato.metrics.metric import Metric
from sfumato.metrics.score import Score
from sfumato.metrics.views import view_key
from sfumato.processes.machine import computing_on, default_device
from sfumato.processes.ranks import join
from sfumato.runs.kinds import kind_of
from sfumato.runs.run import Run

# Of kinds of models that make no images: the one table that is asked of them, and what measures it.
DRAWLESS: dict[str, tuple[str, Callable[..., Result]]] = {
    "classifier": ("accuracy", evaluate_classifier),
    "autoencoder": ("reconstruction", evaluate_autoencoder),
}


def evaluate(
    run: Run,
    *,
    n: int | None = None,
    m: int | None = None,
    extract: str | None = None,
    options: Mapping[str, Any] | None = None,
    metrics: tuple[str, ...] = (),
    split: str = "test",
    first_seed: int = 0,
    use: str | None = None,
    root: Path | str | None = None,
    device: torch.device | str | None = None,
    quiet: bool = False,
) -> Result:
    """Score a run against real images.

    Started by `torchrun` it runs in every process; they share the images, and the first computes and writes the scores.

    Arguments:
        run: The run; its recipe says how it is sampled.
        n: Generated images; None for the recipe's choice.
        m: Reference images, drawn from the split; None for all of it. Splits are compared at equal m only.
        extract: Feature extractor; None for the recipe's choice.
        options: The extractor's own, such as weights of "inception".
        metrics: Names of metrics (`metrics/scores/`), of several of them (pr, prdc), and of tables
            (`evaluation/tables/`). One that cannot be computed is refused with its reason, and the others are computed.
            () for fd and kid, for a classifier its accuracy, and for an autoencoder its reconstructions.
        split: Part of the data that is the reference: "test", "val" or "train".
        first_seed: Seeds are first_seed .. first_seed + n; disjoint ranges give independent scores.
        use: Name of an average of the weights; None for the recipe's choice.
        root: Data root.
        device: None for the best at hand.
        quiet: Whether progress bars are left out.

    Returns:
        The result, also written to RUN/results/.

    Raises:
        LeakageError: If the split is called held out and the model was trained on some of it.
        SelfComparisonError: If more than 1% of the images are copies of the reference.
        NonFiniteError: If the model makes images with NaN or infinity.
        ValueError: If no metric can be computed, n being too small, say.
    """
    n, m, first_seed = conform("n", n, int | None), conform("m", m, int | None), conform("first_seed", first_seed, int)
    recipe, names = run.recipe, names_of(run, metrics)
    run.place("results")
    if not kind_of(recipe).draws:
        _refuse_idle(run, {"n": n, "extract": extract, "first_seed": first_seed, **(options or {})})
        measure = DRAWLESS[kind_of(recipe).name][1]
        return measure(run, m=m, split=split, use=use, root=root, device=device or default_device(), quiet=quiet)
    n = recipe.evaluate.n if n is None else n
    ranks, where = join(device if device is not None else default_device())
    quiet = quiet or not ranks.first
    computing_on(where)
    with ranks.in_turn():
        judge = Judge.of(recipe, split, root, m=m, extract=extract, options=options, quiet=quiet)
    judge = replace(judge, notes=judge.notes + notes_of(run, judge, use))
    labels, prior = run.labels(n, judge.real, first_seed)
    asked = labels.numpy() if isinstance(labels, torch.Tensor) else None
    refused: dict[str, str] = {}
    possible = each(names, refused, lambda name: checked(judge, name, n, asked))
    outputs = outputs_of(judge, list(possible.values()), where)
    for data in (cast(Dataset, judge.real), judge.drawn(n)):
        cached_features(judge.extract, data, quiet, ranks)
    rows, facts = generate(
        run, n, outputs, first_seed=first_seed, use=use, device=where, quiet=quiet, ranks=ranks, labels=labels
    )
    if not ranks.first:
        return cast(Result, ranks.from_first(None))
    made = judge.checked(Generated(rows, asked, prior, rows.pop("hashes"), facts, first_seed=first_seed, told=labels))
    made, tried = with_choices(run, judge, made, use)
    judge = replace(judge, notes=judge.notes + tried)
    found = each(possible, refused, lambda name: measured(judge, possible[name], made))
    scores = tuple(score for score in found.values() if isinstance(score, Score))
    more = [findings for findings in found.values() if isinstance(findings, Findings)]
    kinds = ("tables", "curves", "panels")
    into = {kind: {k: v for one in more for k, v in getattr(one, kind).items()} for kind in kinds}
    name = f"{judge.extract.name}-{split}-n{n}"
    return ranks.from_first(Result.written(run, scores, dict(made.facts), name, **into, refused=refused))


def _refuse_idle(run: Run, options: Mapping[str, Any]) -> None:
    """Refuse options of generated images for a run that makes none.

    Raises:
        ValueError: If one is set.
    """
    if idle := [name for name, value in options.items() if value]:
        raise ValueError(
            f"{' and '.join(idle)} would say how images are made or compared, and {run.path} trained "
            f"{kind_of(run.recipe).words}, which makes none. Leave it out; m says how many real images are measured."
        )


def names_of(run: Run, metrics: Sequence[str]) -> list[str]:
    """Return the names of single metrics and tables that are asked of a run, by default those of its kind.

    Raises:
        ValueError: If a name is unknown, or does not belong to what the run trained.
    """
    kind = kind_of(run.recipe)
    if kind.draws:
        return expand(metrics or ("fd", "kid"))
    own = DRAWLESS[kind.name][0]
    if other := [name for name in metrics if name != own]:
        raise ValueError(
            f"{other[0]} scores images, and {run.path} trained {kind.words}, which makes none. Ask for --metrics {own}."
        )
    return [own]


def checked(judge: Judge, name: str, n: int, labels: np.ndarray | None) -> Metric | Table:
    """Return a metric or a table that can be computed of n images.

    Raises:
        ValueError: If it cannot, before any image is made.
    """
    one = find_asked(name)
    if isinstance(one, Table):
        one.check(judge, labels)
    else:
        judge.check(one, n)
    return one


def measured(judge: Judge, one: Metric | Table, made: Generated) -> Score | Findings:
    """Return the score of a metric, or what a table finds."""
    return one.measure(judge, made) if isinstance(one, Table) else judge.score(one, made)


def outputs_of(judge: Judge, asked: Sequence[Metric | Table], device: torch.device) -> dict[str, Output]:
    """Return what generated images become: features, and the other views that metrics and tables read."""
    views: dict[str, Extractor] = {"features": judge.extract}
    views |= {view_key(one): judge.view(one) for one in asked if isinstance(one, Metric)}
    outputs = {
        key: Output(
            partial(_numbers, extract, device),
            extract.dimension,
            [extract.name, extract.weights_hash, extract.describe(), key],
        )
        for key, extract in views.items()
    }
    pixels = any(isinstance(one, Table) and one.pixels for one in asked)
    return outputs | ({"pixels": pixels_of(judge.shape)} if pixels else {})


def _numbers(extract: Extractor, device: torch.device, images: torch.Tensor) -> np.ndarray:
    return next(stream(extract, [images.to(device)]))


def notes_of(run: Run, judge: Judge, use: str | None) -> tuple[str, ...]:
    """Return flags that follow from how a run came about."""
    notes = []
    if run.about.get("fingerprint", {}).get("data") not in (None, judge.training and judge.training.content_hash):
        notes.append(flagged("other-data"))
    if "imported" in run.about:
        notes.append(flagged("imported"))
    return (*notes, *(_choice(s) for s in run.selected(use) if s["reference"] == judge.identity))


def with_choices(run: Run, judge: Judge, made: Generated, use: str | None) -> tuple[Generated, tuple[str, ...]]:
    """Return images with the choices behind them in their facts, and the flag of settings tried on this reference."""
    selected = run.selected(use)
    facts = {**made.facts, **({"selected": [dict(choice) for choice in selected]} if selected else {})}
    tried = tried_on(run, judge.reference.content_hash, facts)
    if tried <= 1:
        return replace(made, facts=facts), ()
    return replace(made, facts={**facts, "settings_scored_on_this_reference": tried}), (flagged("tried", count=tried),)


def _choice(selected: Mapping[str, Any]) -> str:
    """Write how weights were chosen, for a score against the reference that chose them."""
    names = {"weights": "what", "count": "candidates", "metric": "by", "n": "n"}
    return flagged("selected", **{name: selected[key] for name, key in names.items()})


def tried_on(run: Run, content_hash: str, facts: Mapping[str, Any]) -> int:
    """Count the settings of a run scored on one reference, this one included: the best of several is selected on it."""
    own = ("checkpoint", "weights", "sampler", "grid", "guidance", "guided", "size")
    seen: dict[tuple[str, ...], set[str]] = {}  # by name, which an earlier version's result says alone -> by content

    def note(found: Mapping[str, Any]) -> None:
        by_content = seen.setdefault(tuple(str(found.get(key)) for key in own), set())
        by_content.update(filter(None, [found.get("identity")]))

    note(facts)
    for file in (run.path / "results").glob("*.json"):
        try:
            tree = read_json(file, finite=False)
            if any(s["protocol"]["reference"]["content_hash"] == content_hash for s in tree["scores"]):
                note(tree["provenance"])
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # results of other tools or versions
    return sum(max(1, len(by_content)) for by_content in seen.values())
