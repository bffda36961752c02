"""What is to become of a person's picture: a restoration or an edit.

    "restore": {"picture": PNG, "mask": PNG or null, "task": NAME, "task_options": {}, "method": NAME,
                "method_options": {}, "damaged": false, "resample": 1}
    "edit": {"picture": PNG, "mask": PNG or null, "strength": 0.6, "encode_as": CLASS or null}

PNG is a file in base64, of the size and channels that the model makes; one that is restored may have those of a
measurement. White pixels of a mask are hidden, or may change. The fields are the options of `sfumato restore` and
`sfumato edit`.
"""

from __future__ import annotations

import base64
import binascii
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from sfumato import editing, restoration
from sfumato.app._controls import checked
from sfumato.app._fields import RequestError, fields, named, number, short, whole
from sfumato.app._models import Model
from sfumato.core.denoiser import Denoiser
from sfumato.core.find import find, options_of, parse
from sfumato.core.images import finite, to_float, to_uint8
from sfumato.core.task import Task
from sfumato.data.dataset import DataError
from sfumato.data.decoding import decode_alone
from sfumato.editing import Watched, edited, reencoded
from sfumato.evaluation.restored import band_picture, expected_coverage
from sfumato.interop.pictures import in_words
from sfumato.report.signature import picture_of
from sfumato.restoration import (
    Restored,
    agreeing,
    measured_shapes,
    measurement,
    method_of,
    of_space,
    resampled,
    seeds_of,
)
from sfumato.runs.averages import spelled
from sfumato.runs.conditions import measured_label, usual_method
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe
from sfumato.sources import Diffusion, class_named
from sfumato.tasks._masks import hidden

SOLVER = 50  # largest integer among a method's options: calls of the network within a step
LONGEST = 100  # characters of a class's name
LARGEST = 2**32  # seeds below: the samples of one picture are that far apart


@dataclass(frozen=True, eq=False)
class Restoring:
    """A picture is damaged as a task says, and restored."""

    picture: Tensor
    mask: Tensor | None
    task: Task
    task_options: Mapping[str, Any]
    method: Callable[..., Denoiser]
    method_name: str
    method_options: Mapping[str, Any]
    recipe: Recipe
    damaged: bool
    resample: int
    name = "restore"
    single = False

    def measurement(self, seed: int) -> Tensor:
        """Return what is measured, with the noise of a seed, shape (1, *task.measured)."""
        return measurement(self.task, self.picture[None], self.damaged, [seed])[1]

    def seeds(self, first: int, count: int) -> Sequence[int]:
        """Return those that `restoration.restore` takes."""
        return tuple(seeds_of([first], count).tolist())

    def begin(self, source: Diffusion, seeds: Sequence[int], labels: Tensor | None) -> Watched:
        """Begin the walk of the restoring denoiser."""
        y = self.measurement(seeds[0]).to(source.device).repeat_interleave(len(seeds), 0)
        told = measured_label(self.recipe, self.task, y.cpu(), labels)
        walker = source.having(
            denoiser=self.method(source.denoiser, of_space(self.task, source.space), y, plan(self.recipe).sigma_data),
            sampler=resampled(source.sampler, self.resample) if self.resample > 1 else None,
        )
        steps = (len(walker.grid) - 1) * self.resample
        return Watched(walker.states(seeds, told), steps, partial(agreeing, self.task, y))

    def shown(self, answers: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Yield the measurement, and of two or more answers the mean and the band."""
        yield "measured", to_uint8(self.task.picture(self.measurement(seed)))[0]
        if len(answers) > 1:
            found = Restored(answers[None], 0, 0)
            yield "mean", to_uint8(found.mean)[0]
            yield f"{100 * expected_coverage(found):.0f}% band", band_picture(found)[0]

    def said(self, source: Diffusion) -> str:
        """Return what is done to the picture, for captions."""
        return restoration.said(self.task, self.method_name)

    def asked(self) -> dict[str, Any]:
        """Return task and method with their options."""
        return {
            "task": self.task.name,
            "task_options": self.task_options,
            "method": self.method_name,
            "method_options": self.method_options,
            "damaged": self.damaged,
            "resample": self.resample,
        }

    def words(self, count: int, seed: int, label: str | None) -> list[str]:
        """Return the words of `sfumato restore`."""
        options = {"task": self.task.name, **self.task_options, **({} if self.mask is None else {"mask": "mask.png"})}
        words = [f"{key}={value}" for key, value in {**options, **self.method_options}.items()]
        words += ["--method", self.method_name, "--samples", str(count), "--first-seed", str(seed)]
        words += ["--damaged"] * self.damaged + ["--resample", str(self.resample)] * (self.resample > 1)
        return words + (["--classes", label] if label else [])


@dataclass(frozen=True, eq=False)
class Editing:
    """A picture is noised part of the way and walked down again, or encoded under its own class and decoded."""

    picture: Tensor
    mask: Tensor | None
    strength: float
    encode_as: str | None
    label: int | None
    name = "edit"

    @property
    def single(self) -> bool:
        """Whether there is one answer, whatever the seed."""
        return self.encode_as is not None

    def seeds(self, first: int, count: int) -> Sequence[int]:
        """Return seeds that follow each other."""
        return tuple(range(first, first + count))

    def begin(self, source: Diffusion, seeds: Sequence[int], labels: Tensor | None) -> Watched:
        """Begin the walk from the noised or the encoded picture."""
        images = to_float(self.picture).expand(len(seeds), -1, -1, -1)
        if self.encode_as is not None:
            own = None if self.label is None else torch.full((len(seeds),), self.label)
            return reencoded(source, images, own, labels, mask=self.mask)
        return edited(source, images, self.strength, seeds=seeds, labels=labels, mask=self.mask)

    def shown(self, answers: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Yield the mean of two or more edits."""
        if len(answers) > 1:
            yield "mean", to_uint8(answers.mean(0))

    def said(self, source: Diffusion) -> str:
        """Return what is done to the picture, for captions."""
        if self.encode_as is not None:
            return editing.said_encoded(self.encode_as)
        return editing.said(source.grid, self.strength)

    def asked(self) -> dict[str, Any]:
        """Return the strength, and the class under which the picture is encoded."""
        return {"strength": self.strength, "encode_as": self.encode_as}

    def words(self, count: int, seed: int, label: str | None) -> list[str]:
        """Return the words of `sfumato edit`."""
        if self.encode_as is not None:
            words = ["--encode-as", self.encode_as]
        else:
            words = ["--strength", spelled(self.strength, f"{self.strength:g}"), "--n", str(count)]
            words += ["--first-seed", str(seed)]
        words += [] if self.mask is None else ["--mask", "mask.png"]
        return words + (["--to", label] if label else [])


Change = Restoring | Editing


def carried(change: Change) -> dict[str, Any]:
    """Return the field of a request that asks for a change: what a picture carries to be made again."""
    mask = None if change.mask is None else encoded(change.mask[None] * torch.tensor(255, dtype=torch.uint8))
    return {"picture": encoded(change.picture), "mask": mask, **change.asked()}


def beside(change: Change, answers: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
    """Yield what is shown beside the answers: the picture, the mask, what the answers say together.

    Arguments:
        change: What was asked for.
        answers: Floats (N, C, H, W) on the CPU; those that are not finite are left out.
        seed: Seed of the first.
    """
    yield "picture", change.picture
    if change.mask is not None:
        yield "mask", change.mask[None] * torch.tensor(255, dtype=torch.uint8)
    yield from change.shown(answers[finite(answers)], seed)


def encoded(image: Tensor) -> str:
    """Return a uint8 image (C, H, W) as a PNG in base64."""
    out = io.BytesIO()
    picture_of(image).save(out, format="PNG")
    return base64.b64encode(out.getvalue()).decode()


def read_change(kind: str, tree: Any, model: Model, most: int) -> Change:
    """Return the change that a request asks for.

    Arguments:
        kind: "restore" or "edit".
        tree: The field of the request.
        model: What restores.
        most: The largest integer among a task's options.

    Raises:
        RequestError, TaskError, OptionError: With the rule, the value and the remedy.
    """
    restoring = ("task", "task_options", "method", "method_options", "damaged", "resample")
    own = ("strength", "encode_as") if kind == "edit" else restoring
    tree = fields(tree, f"What to {kind}", ("picture", "mask", *own))
    shape = (model.shape.channels, model.shape.height, model.shape.width)
    picture = pixels_of(tree.get("picture"), "The picture")
    grey = grey_of(picture)
    if shape[0] == 1:
        picture = grey
    mask = None if tree.get("mask") is None else _mask(tree["mask"], *shape[1:])
    if kind == "edit":
        _check_shape(picture, [shape])
        known = model.run.classes
        own, label = tree.get("encode_as"), None
        if own is not None:
            if not isinstance(own, str) or len(own) > LONGEST:
                raise RequestError(f"encode_as is the name of a class; got {short(own)}.")
            label = class_named(own, known)
        return Editing(picture, mask, number(tree, "strength", 0, 1, 0.6), own, label)
    name, given = named(tree, "task", "inpaint")
    options = checked("task", name, given or {}, most)
    entry = find("task", name)
    takes_mask = "mask" in options_of(entry)
    if mask is not None and not takes_mask:
        raise RequestError(f"The task {name} takes no mask. Leave it out, or take the task inpaint.")
    if "mask" in options and mask is not None:
        raise RequestError("A mask is a picture or words (task_options), not both.")
    values = {key: parse(value) if key == "mask" else value for key, value in options.items()}
    task: Task = entry(shape, **values, **({} if mask is None else {"mask": mask}))
    if not isinstance(damaged := tree.get("damaged", False), bool):
        raise RequestError(f"damaged is true or false; got {short(damaged)}.")
    if damaged and tuple(grey.shape) in measured_shapes(task)[1:]:
        picture = grey
    _check_shape(picture, measured_shapes(task))
    method_name, chosen = named(tree, "method", usual_method(model.run.plan, task))
    bounded = checked("method", method_name, chosen or {}, SOLVER)
    change = Restoring(
        picture,
        mask,
        task,
        options,
        method_of(method_name, **bounded),
        method_name,
        bounded,
        model.run.recipe,
        damaged,
        whole(tree, "resample", 1, SOLVER, 1),
    )
    seen = of_space(task, model.run.space(device=model.device))
    y, spread = change.measurement(0), model.run.plan.sigma_data
    measured_label(change.recipe, task, y, None)  # refuses what does not fit,
    change.method(model.denoiser(None), seen, y, spread)  # and a method that does not
    return change


def _check_shape(picture: Tensor, shapes: Sequence[tuple[int, ...]]) -> None:
    """Refuse a picture of another shape."""
    if tuple(picture.shape) not in shapes:
        makes = f"the model makes {in_words(shapes[0])}"
        measured = "".join(f", or a measurement is {in_words(shape)}" for shape in shapes[1:])
        raise RequestError(
            f"The picture is {in_words(tuple(picture.shape))} and {makes}{measured}. Resize or convert it."
        )


def grey_of(picture: Tensor) -> Tensor:
    """Return a grey picture that is stored in colour as grey, any other as it is."""
    return picture[:1] if bool((picture == picture[:1]).all()) else picture


def pixels_of(text: Any, what: str) -> Tensor:
    """Return a picture of base64 as uint8 (C, H, W); `what` names it in messages."""
    if not isinstance(text, str):
        raise RequestError(f"{what} is a PNG in base64; got {type(text).__name__}. Choose a picture.")
    try:
        return torch.from_numpy(decode_alone(base64.b64decode(text, validate=True)).pixels)
    except (binascii.Error, DataError) as error:
        raise RequestError(f"{what} cannot be read: {error}.") from None


def _mask(text: Any, height: int, width: int) -> Tensor:
    return hidden(pixels_of(text, "The mask").float().mean(0).byte(), height, width)
