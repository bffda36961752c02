"""What is to become of a person's picture: a restoration or an edit.

    "restore": {"picture": PNG, "mask": PNG or null, "task": NAME, "task_options": {}, "method": NAME,
                "method_options": {}}
    "edit": {"picture": PNG, "mask": PNG or null, "strength": 0.6}

PNG is a file in base64, of the size and channels that the model makes. White pixels of a mask are hidden, or may
change.
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
from sfumato.app._fields import RequestError, fields, named, number
from sfumato.app._models import Model
from sfumato.core.denoiser import Denoiser
from sfumato.core.find import find, options_of, parse
from sfumato.core.images import finite, to_float, to_uint8
from sfumato.core.task import Task, TaskError
from sfumato.data.dataset import DataError
from sfumato.data.decoding import decode
from sfumato.editing import Watched, edited
from sfumato.evaluation.restored import band_picture, expected_coverage
from sfumato.interop.pictures import in_words
from sfumato.report.signature import picture_of
from sfumato.restoration import Restored, agreeing, measured, method_of, of_space, seeds_of
from sfumato.runs.averages import spelled
from sfumato.sources import Diffusion

SOLVER = 50  # largest integer among a method's options: calls of the network within a step
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
    sigma_data: float
    name = "restore"

    def measurement(self, seed: int) -> Tensor:
        """Return what is measured, with the noise of a seed, shape (1, *task.measured)."""
        return measured(self.task, to_float(self.picture)[None], [seed])

    def seeds(self, first: int, count: int) -> Sequence[int]:
        """Return those that `restoration.restore` takes."""
        return tuple(seeds_of([first], count).tolist())

    def begin(self, source: Diffusion, seeds: Sequence[int], labels: Tensor | None) -> Watched:
        """Begin the walk of the restoring denoiser."""
        y = self.measurement(seeds[0]).to(source.device).repeat_interleave(len(seeds), 0)
        walker = source.having(
            denoiser=self.method(source.denoiser, of_space(self.task, source.space), y, self.sigma_data)
        )
        return Watched(walker.states(seeds, labels), len(walker.grid) - 1, partial(agreeing, self.task, y))

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
        }

    def words(self, count: int, seed: int, label: str | None) -> list[str]:
        """Return the words of `sfumato restore`."""
        options = {"task": self.task.name, **self.task_options, **({} if self.mask is None else {"mask": "mask.png"})}
        words = [f"{key}={value}" for key, value in {**options, **self.method_options}.items()]
        words += ["--method", self.method_name, "--samples", str(count), "--first-seed", str(seed)]
        return words + (["--classes", label] if label else [])


@dataclass(frozen=True, eq=False)
class Editing:
    """A picture is noised part of the way and walked down again."""

    picture: Tensor
    mask: Tensor | None
    strength: float
    name = "edit"

    def seeds(self, first: int, count: int) -> Sequence[int]:
        """Return seeds that follow each other."""
        return tuple(range(first, first + count))

    def begin(self, source: Diffusion, seeds: Sequence[int], labels: Tensor | None) -> Watched:
        """Begin the walk from the noised picture."""
        images = to_float(self.picture).expand(len(seeds), -1, -1, -1)
        return edited(source, images, self.strength, seeds=seeds, labels=labels, mask=self.mask)

    def shown(self, answers: Tensor, seed: int) -> Iterator[tuple[str, Tensor]]:
        """Yield the mean of two or more edits."""
        if len(answers) > 1:
            yield "mean", to_uint8(answers.mean(0))

    def said(self, source: Diffusion) -> str:
        """Return what is done to the picture, for captions."""
        return editing.said(source.grid, self.strength)

    def asked(self) -> dict[str, Any]:
        """Return the strength."""
        return {"strength": self.strength}

    def words(self, count: int, seed: int, label: str | None) -> list[str]:
        """Return the words of `sfumato edit`."""
        words = [
            "--strength",
            spelled(self.strength, f"{self.strength:g}"),
            "--n",
            str(count),
            "--first-seed",
            str(seed),
        ]
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
    own = ("strength",) if kind == "edit" else ("task", "task_options", "method", "method_options")
    tree = fields(tree, f"What to {kind}", ("picture", "mask", *own))
    shape = (model.shape.channels, model.shape.height, model.shape.width)
    picture = _pixels(tree.get("picture"), "The picture")
    if shape[0] == 1 and bool((picture == picture[:1]).all()):  # grey, stored in colour
        picture = picture[:1]
    if tuple(picture.shape) != shape:
        raise RequestError(
            f"The picture is {in_words(tuple(picture.shape))} and the model makes {in_words(shape)}. Resize or convert "
            "it."
        )
    mask = None if tree.get("mask") is None else _mask(tree["mask"], *shape[1:])
    if kind == "edit":
        return Editing(picture, mask, number(tree, "strength", 0, 1, 0.6))
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
    method_name, chosen = named(tree, "method", "moment")
    bounded = checked("method", method_name, chosen or {}, SOLVER)
    change = Restoring(
        picture,
        mask,
        task,
        options,
        method_of(method_name, **bounded),
        method_name,
        bounded,
        model.run.recipe.sigma_data or 0.5,
    )
    seen = of_space(task, model.run.space(device=model.device))
    change.method(model.denoiser(None), seen, change.measurement(0), change.sigma_data)  # refuses what does not fit
    return change


def _pixels(text: Any, what: str) -> Tensor:
    """Return a picture of base64 as uint8 (C, H, W)."""
    if not isinstance(text, str):
        raise RequestError(f"{what} is a PNG in base64; got {type(text).__name__}. Choose a picture.")
    try:
        return torch.from_numpy(decode(base64.b64decode(text, validate=True)).pixels)
    except (binascii.Error, DataError) as error:
        raise RequestError(f"{what} cannot be read: {error}.") from None


def _mask(text: Any, height: int, width: int) -> Tensor:
    pixels = _pixels(text, "The mask").float().mean(0)
    if pixels.shape != (height, width):
        raise TaskError(
            f"A mask has the size of the picture, {width}x{height}; got {pixels.shape[1]}x{pixels.shape[0]}. Resize it "
            "to the nearest pixels, or paint it again."
        )
    return pixels > 127
