"""From a request to pictures, step by step: what the page draws while images emerge.

A walk's events, as JSON values:

    frame   x and x0 = D(x) of all images after a step, each as one PNG of `COLUMNS` tiles a row; its noise level
    done    every image as a signed PNG, all of them as a signed sheet, what is shown beside them, seconds, calls of the
            network, the command

Two ways go on in step, the one that is less far first, so both panels emerge together.
"""

from __future__ import annotations

import base64
import io
import json
import math
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sfumato.app._change import beside, carried, encoded
from sfumato.app._models import Model
from sfumato.app._request import Panel, Request
from sfumato.core.condition import part_of
from sfumato.core.denoiser import Counted, State, stoppable
from sfumato.core.images import finite, tile, to_uint8
from sfumato.core.level import like
from sfumato.report.signature import picture_of, signed, told_settings
from sfumato.runs.averages import spelled
from sfumato.runs.part import option
from sfumato.runs.recipe import Part, Sample

COLUMNS, GAP = 8, 2  # of a sheet; a frame has no gaps
FRAMES = 40  # of a walk, at most

Event = dict[str, Any]


def walk(request: Request, stop: Callable[[], str | None]) -> Iterator[Event]:
    """Yield the events of a request.

    Arguments:
        request: A request that was checked.
        stop: Asked before every call of a network; a text stops the work and says why.

    Raises:
        StoppedError: When told to.
        ValueError: If sampler, grid and guidance do not fit the model.
    """
    walks = [_Walk(number, way, request, stop) for number, way in enumerate(request.ways)]
    while going := [each for each in walks if not each.over]:
        yield from min(going, key=lambda each: each.step / each.steps).go()


class _Walk:
    """One way's images on their way."""

    def __init__(self, number: int, way: Panel, request: Request, stop: Callable[[], str | None]) -> None:
        self.number, self.way, self.request = number, way, request
        self.counted = Counted(stoppable(way.model.denoiser(way.use), stop))
        self.run = way.model.run.with_recipe(way.model.recipe(way.sample))
        self.source = self.run.diffusion(use=way.use, device=way.model.device, denoiser=self.counted)
        self.labels, labels = request.labels[number], request.told[number]
        self.steps = len(self.source.grid) - 1
        self.finish: Callable[[Tensor], Tensor] = lambda x: x
        if request.change is not None:
            watched = request.change.begin(self.source, request.seeds, part_of(labels, "label"))
            self.states, self.steps, self.finish = watched.states, watched.steps, watched.finish
        elif request.to is None:
            self.states = self.source.states(request.seeds, labels)
        else:
            self.states = self.source.mixed(request.seeds[0], request.to, torch.tensor(request.mix), labels)
        self.step, self.seconds = 0, 0.0
        self.last: State | None = None
        self.over = False

    def go(self) -> Iterator[Event]:
        began = time.perf_counter()
        state = next(self.states, None)
        if state is not None and self.step + 1 >= self.steps:
            state = state._replace(x=self.finish(state.x))
        if state is not None:
            shown = {"x0": _frame(state.x0), "x": _frame(state.x / _radius(state))}  # waits for the device, too
        self.seconds += time.perf_counter() - began
        if state is None:
            self.over = True
            yield self._done()
            return
        before, self.step, self.last = self.step, self.step + 1, state
        share = min(FRAMES, self.steps)
        final = self.step >= self.steps
        if final or before * share // self.steps != self.step * share // self.steps:
            shown = {"x0": shown["x"], "x": shown["x"]} if final else shown  # the sample itself
            nsr = float(state.level.nsr.reshape(-1)[0])
            facts = {"step": self.step, "steps": self.steps, "nsr": nsr if math.isfinite(nsr) else None}
            yield {"event": "frame", "way": self.number, **facts, **shown}

    def _done(self) -> Event:
        assert self.last is not None
        good = finite(self.last.x)
        images = to_uint8(torch.nan_to_num(self.last.x), self.source.quantisation).cpu()
        count = len(images)
        return {
            "event": "done",
            "way": self.number,
            "images": [self._entry(i, images[i]) if bool(good[i]) else None for i in range(count)],
            "sheet": self._sheet(images) if bool(good.all()) else None,
            "beside": self._beside(),
            "bad": int((~good).sum()),
            "unseen": list(self.request.unseen),
            "seconds": self.seconds,
            "nfe": self.counted.rows / count,
            "vjps": self.counted.vjps,
            "made": self._words(),
            "command": command(self.way, self.request, self.labels),
        }

    def _entry(self, i: int, image: Tensor) -> Event:
        request = self.request
        made = {"seed": request.seeds[i], "label": None if self.labels is None else self.labels[i]}
        ends = {} if request.to is None else {"to": request.to, "mix": request.mix[i]}
        return {**made, **ends, "png": self._signed(picture_of(image), made | ends)}

    def _beside(self) -> list[Event]:
        """Return what is shown beside the answers for one picture, each signed."""
        request = self.request
        if request.image is not None:
            made = {"seeds": request.seeds, "labels": self.labels, "what": "told"}
            return [{"name": "told", "png": self._signed(picture_of(request.image), made)}]
        if request.change is None:
            return []
        assert self.last is not None
        made = {"seeds": request.seeds, "labels": self.labels}
        found = beside(request.change, self.last.x.cpu(), request.seeds[0])
        return [{"name": name, "png": self._signed(picture_of(image), {**made, "what": name})} for name, image in found]

    def _sheet(self, images: Tensor) -> str:
        request = self.request
        made: dict[str, Any] = {"seeds": request.seeds, "labels": self.labels}
        made |= {} if request.to is None else {"to": request.to, "mix": request.mix}
        return self._signed(Image.fromarray(tile(images, min(COLUMNS, len(images)), GAP)), made)

    def _signed(self, picture: Image.Image, made: Event) -> str:
        settings = self.way.model.settings(self.way.sample, self.way.use)
        change, image = self.request.change, self.request.image
        asked: Event = {} if change is None else {change.name: carried(change)}
        where = self.request.where
        if change is None:
            settings |= told_settings(where, image, self.way.model.lender(where, image))
        if image is not None:
            asked["like_image"] = encoded(image)
        return _png(
            picture, signed(picture, {**made, **asked, "settings": json.dumps(settings, sort_keys=True)}, self._words())
        )

    def _words(self) -> str:
        nfe = self.counted.rows / len(self.request.seeds)
        done = "" if self.request.change is None else self.request.change.said(self.source)
        return replace(self.run.making(self.way.use), nfe=nfe, done=done).sentence


def _radius(state: State) -> Tensor:
    """Return what brings a noisy image onto the unit circle, where it can be seen; 1 at the clean end."""
    return like(torch.hypot(state.level.alpha, state.level.sigma), state.x)


def _frame(images: Tensor) -> str:
    codes = to_uint8(torch.nan_to_num(images)).cpu()
    return _png(Image.fromarray(tile(codes, min(COLUMNS, len(codes)), 0)), None)


def _png(picture: Image.Image, info: PngInfo | None) -> str:
    out = io.BytesIO()
    picture.save(out, format="PNG", pnginfo=info, compress_level=1 if info is None else 6)
    return base64.b64encode(out.getvalue()).decode()


def command(way: Panel, request: Request, labels: tuple[int, ...] | None) -> str:
    """Return the command that makes the same images, of labels (None for none), without the page."""
    run = str(way.model.run.path)
    if request.to is not None:
        return shlex.join(["sfumato", "sample", run, "--like", "PICTURE.png"])
    fields = list(_fields(way.model, way.sample))
    use = None if way.use == way.model.run.recipe.ema.use else way.use
    classes = way.model.run.classes
    if (change := request.change) is not None:
        label = None if labels is None else _named(labels[0], classes)
        words = ["sfumato", change.name, run, "picture.png", *fields]
        words += change.words(len(request.seeds), request.seeds[0], label)
        return shlex.join(words + (["--use", use] if use else []))
    words = ["sfumato", "sample", run, *fields, "--seeds", f"{request.seeds[0]}:{request.seeds[-1] + 1}"]
    if classes and labels is None:
        words += ["--classes", "none"]
    elif labels is not None and labels != tuple(s % len(classes) for s in request.seeds):
        words += ["--classes", _named(labels[0], classes)]
    if request.where:
        words += ["--where", ",".join(f"{name}={value}" for name, value in request.where.items())]
    if request.image is not None:
        words += ["--like-image", "told.png"]
    return shlex.join(words + (["--use", use] if use else []))


def _named(label: int, classes: Sequence[str]) -> str:
    """Return what a command calls a class: its name, as another class may be called by its number."""
    return classes[label] if label >= 0 else str(label)


def _fields(model: Model, sample: Sample) -> Iterator[str]:
    """Yield the fields of `sample` that differ from the run's own."""
    mine = model.run.recipe.sample
    pairs: list[tuple[str, Part, Part]] = [("sampler", sample.sampler, mine.sampler), ("grid", sample.grid, mine.grid)]
    for name, part, own in pairs:
        if part != own and (called := option(part, "called")) in model.computed:
            yield f"{name}={called}"
            continue
        if part.name != own.name:
            yield f"{name}={part.name}"
        before = own.options if part.name == own.name else {}
        if set(before) - set(part.options):  # naming the part again puts its options back to their defaults
            yield f"{name}={part.name}"
            before = {}
        for key, value in part.options.items():
            if key not in before or before[key] != value:
                yield f"{name}.{key}={str(value).lower() if isinstance(value, bool) else value}"
    if sample.guidance != mine.guidance:
        yield f"guidance={spelled(sample.guidance, f'{sample.guidance:g}')}"
