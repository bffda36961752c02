"""What the words of `sfumato restore` ask for: a task, options of the task and the method, fields, pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfumato.cli._arguments import refusal

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.core.task import Task


@dataclass(frozen=True)
class Parted:
    """What the words with "=" ask for.

    Attributes:
        name: Name of the task.
        options: Options of the task.
        method: Options of the method.
        fields: Assignments to fields of `sample`.
    """

    name: str
    options: Mapping[str, Any]
    method: Mapping[str, Any]
    fields: list[str]

    def task(self, shape: tuple[int, int, int], fit: bool) -> Task:
        """Return the task for pictures of a shape; a mask that names a file is read."""
        from sfumato.interop.pictures import read_mask

        mask = self.options.get("mask")
        if isinstance(mask, str) and Path(mask).suffix:
            return self._made(shape, {**self.options, "mask": read_mask(Path(mask), shape[1], shape[2], fit)})
        return self._made(shape, self.options)

    def unmasked(self, shape: tuple[int, int, int]) -> Task:
        """Return the task with the usual mask, if it has one: what kind of task it is."""
        return self._made(shape, {key: value for key, value in self.options.items() if key != "mask"})

    def _made(self, shape: tuple[int, int, int], options: Mapping[str, Any]) -> Task:
        from sfumato.core.find import check_options, find

        entry = find("task", self.name)
        return entry(shape, **check_options(f"task '{self.name}'", entry, options, fixed=("shape",)))


def parted(words: Sequence[str], method: str) -> Parted:
    """Say which words are the task, its options, the method's options and fields of `sample`.

    Raises:
        OptionError: If no task is named.
        UnknownNameError: For an unknown task or method.
    """
    from sfumato.core.find import assigned, entries, find, options_of, parse
    from sfumato.restoration import FIXED

    given = assigned(words)
    if "task" not in given:
        raise refusal(f"Say what to undo: task=NAME, one of {', '.join(entries('tasks'))}.")
    name = given.pop("task")
    of_task = options_of(find("task", name), fixed=("shape",))
    of_method = options_of(find("method", method), fixed=FIXED)
    return Parted(
        name,
        {key: parse(text) for key, text in given.items() if key in of_task},
        {key: parse(text) for key, text in given.items() if key in of_method},
        [f"{key}={text}" for key, text in given.items() if key not in of_task and key not in of_method],
    )


def measure(task: Task, truth: Tensor, first_seed: int) -> Tensor:
    """Return measurements of uint8 pictures, with the noise of their seeds."""
    from sfumato.core.images import to_float
    from sfumato.restoration import measured

    return measured(task, to_float(truth), range(first_seed, first_seed + len(truth)))


def read(
    task: Task, paths: Sequence[str], damaged: bool, fit: bool, first_seed: int
) -> tuple[list[str], Tensor | None, Tensor]:
    """Return (names, originals or None, measurements) of a person's pictures.

    Raises:
        DataError, TaskError: If a picture does not fit, or originals and measurements are mixed.
    """
    import torch

    from sfumato.data.dataset import DataError
    from sfumato.interop.pictures import files_of, read_picture
    from sfumato.restoration import measured_shapes, measurement

    files = files_of(paths)
    pictures = [read_picture(file, measured_shapes(task), fit) for file in files]
    if len({picture.shape for picture in pictures}) > 1:
        raise DataError("Some pictures have the size of the original and some that of a measurement. Give one kind.")
    images = torch.stack(pictures)
    names = _distinct([file.stem for file in files])
    return names, *measurement(task, images, damaged, range(first_seed, first_seed + len(images)))


def _distinct(names: list[str]) -> list[str]:
    """Return names of which none is there twice: numbered where pictures of several folders share one."""
    return names if len(set(names)) == len(names) else [f"{i:03d}-{name}" for i, name in enumerate(names)]
