"""What makes an image, by content: two runs of one identity make the same image of a seed and a label.

    weights    sha256 of the tensors that are used: of the average, also of one made after training
    model      fields of the recipe that the model is made of, the precision, shapes and classes
    guides     the same two of the weak model and of the classifier that guide
    sample     the settings of sampling; a part from outside carries the hash of its code

Names say where something was found and may hold something else tomorrow: a step, an average, the folder of a guide. The
cache of generated images, folders of images, signed pictures, model cards and results all ask here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from sfumato.metrics.protocol import canonical
from sfumato.runs.idle import DESIGN
from sfumato.runs.recipe import differences
from sfumato.runs.run import Run

NAMES = ("recipe", "checkpoint", "use")  # beside an identity, for people
GUIDES = ("autoguidance", "classifier")  # fields of `sample` that name a run


def identity(run: Run, use: str | None = None) -> dict[str, Any]:
    """Return all that decides which image a run makes of a seed and a label, but for device and versions.

    Arguments:
        run: Sampled as its recipe says.
        use: Which average of the weights; None for the recipe's choice.

    Raises:
        RecipeError, CheckpointError: If the average or a guide is not there.
    """
    sample, guides = run.recipe.sample, {}
    if sample.autoguidance is not None:
        guides["autoguidance"] = _model(*run.weak_run())
    if sample.classifier is not None:
        guides["classifier"] = _model(Run.open(sample.classifier))
    own = {**_model(run, use), "classes": len(run.classes)}
    return {**own, "guides": guides, "sample": run.recipe.to_json()["sample"]}


def _model(run: Run, use: str | None = None) -> dict[str, Any]:
    found, group = run.taken(use)
    recipe, tree = run.recipe, run.recipe.to_json()
    shapes = recipe.shape, run.trained.recipe.shape
    own, at = (None if s is None else [s.channels, s.height, s.width] for s in shapes)
    model = {name: tree[name] for name in sorted(DESIGN & run.plan.reads)}
    model |= {"precision": recipe.train.precision, "shape": own, "trained_at": at}
    model |= {"classes": len(recipe.shape.classes) if recipe.shape else 0, "labels": bool(recipe.data.labels)}
    model |= {"learned": recipe.learned} if recipe.learned else {}
    model["augmented"] = recipe.data.augment > 0
    if recipe.shape is not None and recipe.data.told_more:  # what a number that is asked for means
        model["told"] = {name: tree["shape"].get(name) for name in ("attributes", "beside")}
    model |= {"latent": tree["latent"]} if "latent" in tree else {}
    return {"weights": found.digest(group), "model": model}


def changed(recorded: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the dotted paths at which an identity differs from a recorded one, with both values as text.

    A record of an earlier version holds less: what it did not record is not compared.

    Arguments:
        recorded: An identity with what was written beside it, in today's spelling (`recipe.today`).
        now: The same of today.
    """
    if "weights" in recorded and "weights" in now:
        recorded, now = _by_content(recorded), _by_content(now)
    return differences(recorded, {key: now.get(key) for key in recorded})


def key_of(found: Mapping[str, Any]) -> str:
    """Return the hash of an identity."""
    return hashlib.sha256(canonical(_by_content(found)).encode()).hexdigest()


def summary(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity for the provenance of a result: its hash, and those of the weights and of what guides."""
    guides = {name: guide["weights"][:16] for name, guide in found["guides"].items()}
    facts = {"identity": key_of(found)[:16], "weights_hash": found["weights"][:16]}
    return facts | ({"guides_hash": guides} if guides else {})


def _by_content(found: Mapping[str, Any]) -> dict[str, Any]:
    """Return an identity without what is a name only."""
    sample = {name: value for name, value in found["sample"].items() if name not in GUIDES}
    return {**{key: value for key, value in found.items() if key not in NAMES}, "sample": sample}
