"""A trained model in Python: what the commands do, as six methods.

    model = sfumato.load("runs/edm-fashion-mnist-cpu")      # or OWNER/NAME on the Hugging Face Hub
    model.sample(8)                                         # pictures; a notebook shows them
    model.steps(4)                                          # how they emerge
    model.guided(2.5).sample(8, classes=["bag"])            # another model, the same weights
    model.sampled("ddim", steps=20).sample(8)
    model.evaluate(n=1000), model.likelihood(n=100)

A model is a value: `guided`, `sampled` and `having` return another one and leave this one as it is. The image of a seed
is the same as on the command line.
"""

from __future__ import annotations

import base64
import html
import io
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor

from sfumato.core.condition import part_of
from sfumato.core.find import check_options, conform, find, in_python, several
from sfumato.core.images import in_floats, to_uint8
from sfumato.core.task import Task
from sfumato.editing import edit, said
from sfumato.evaluation.probe import probe
from sfumato.evaluation.scoring import Result
from sfumato.evaluation.scoring import evaluate as score
from sfumato.interop.hub import REPOSITORY, download
from sfumato.processes.machine import device_named
from sfumato.progress import bar_of
from sfumato.report import strip as walks
from sfumato.report.sheet import sheet
from sfumato.restoration import Restored, measurement, method_of, restore
from sfumato.runs.computed import by_levels, say_changes
from sfumato.runs.conditions import measured_label, outside, usual_method
from sfumato.runs.making import Making
from sfumato.runs.override import override, with_warnings
from sfumato.runs.recipe import RecipeError, part
from sfumato.runs.resolve import load_data
from sfumato.runs.run import Run
from sfumato.sources import class_named, class_names, classes_named, in_turn, watched
from sfumato.tasks._masks import Mask

COLUMNS = 8
SHOWN = 64  # images that a notebook shows of many


@dataclass(frozen=True, eq=False)
class Pictures:
    """Hold sampled images.

    Attributes:
        images: uint8 (B, C, H, W).
        seeds: The seed of each image.
        labels: int64 (B,), or None.
        title: Stands above the sheet.
        caption: How they were made (`runs.making`).
    """

    images: Tensor
    seeds: tuple[int, ...]
    labels: Tensor | None = None
    title: str = ""
    caption: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        c, h, w = self.images.shape[1:]
        return f"Pictures({len(self)} images {c}x{h}x{w}, seeds {self.seeds[0]} to {self.seeds[-1]})"

    def sheet(self, columns: int = COLUMNS) -> Image.Image:
        """Return the images in rows, with a caption of their seeds."""
        columns = min(columns, len(self))
        return sheet(self.images, columns, seeds=self.seeds, title=self.title, caption=self.caption)

    def save(self, path: Path | str) -> Path:
        """Write the sheet as PNG and return its path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        self.sheet().save(path)
        return path

    def _repr_html_(self) -> str:
        few = replace(self, images=self.images[:SHOWN], seeds=self.seeds[:SHOWN])
        return _embedded(few.sheet(), repr(self))


@dataclass(frozen=True, eq=False)
class Model:
    """A trained model; make one with `sfumato.load`.

    Attributes:
        run: The run that it was opened from.
        use: Which average of the weights; None for the recipe's choice.
        device: Where it computes.
    """

    run: Run
    use: str | None = None
    device: str = "cpu"

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names; () if it is unlabelled."""
        return self.run.classes

    @cached_property
    def source(self) -> Any:
        """The maker of its images, built once."""
        return self.run.source(use=self.use, device=self.device)

    def sample(
        self,
        n: int | Sequence[int] = 8,
        classes: str | int | Sequence[str | int] | None = None,
        *,
        where: Mapping[str, float | str] | None = None,
        image: Tensor | None = None,
        root: Path | str | None = None,
        progress: bool = True,
    ) -> Pictures:
        """Make images.

        Arguments:
            n: How many, seeds 0..n-1; or the seeds themselves.
            classes: A name or number, or several taken in turn; None for all of them.
            where: Attributes of every image, such as {"smiling": 1}; those that are not named are left open.
            image: The image that a model of data.condition is told, uint8 (c, h, w); those of test images unless given.
            root: Data root of those.
            progress: Show a bar.

        Raises:
            UnknownNameError: For a class or an attribute that the model does not know.
        """
        seeds, labels = self._asked(n, classes)
        load = partial(load_data, self.run.recipe, "test", root)
        lender = self.run.lender(where or {}, image, load)
        told = self.run.named(seeds, labels, where, image, lender, classes is not None)
        for line in outside(self.run.recipe, where or {}):
            warnings.warn(line, stacklevel=2)
        with bar_of(len(seeds), "img", quiet=not progress, leave=False) as bar:
            source, finished = watched(self.source, bar)
            images = source(seeds, told, progress=finished)
        return Pictures(images, seeds, part_of(told, "label"), self.run.title, self.run.making(self.use).sentence)

    def steps(self, n: int | Sequence[int] = 4, classes: str | int | Sequence[str | int] | None = None) -> Image.Image:
        """Draw how images emerge: every row a seed, every column a step. Arguments as for `sample`."""
        seeds, labels = self._asked(n, classes)
        names, words = class_names(labels, self.classes), self.run.making(self.use).sentence
        title = self.run.title
        return walks.strip(self.source, seeds, labels, row_labels=names, title=title, caption=words)

    def task(self, name: str, **options: Any) -> Task:
        """Return a task for this model's pictures, e.g. `model.task("inpaint", mask="half")`.

        Arguments:
            name: See `sfumato list tasks`.
            options: Of the task.
        """
        entry = find("task", name)
        return entry(self.source.shape, **check_options(f"task {name!r}", entry, options, fixed=("shape",)))

    def restore(
        self,
        images: Tensor,
        task: Task | str,
        method: str | None = None,
        samples: int = 4,
        classes: str | int | Sequence[str | int] | None = None,
        *,
        damaged: bool = False,
        **options: Any,
    ) -> Restored:
        """Damage pictures as a task says and restore them, several times each.

        Arguments:
            images: uint8 or float in [-1, 1], (B, C, H, W), a tensor or an array. Those of a measurement's own shape,
                (B, *task.measured), as the small pictures of superres are, are damaged already.
            task: What happened to them, or its name; see `task`.
            method: See `sfumato list methods`; unless given moment, or told for a model that is told the measurement,
                or dps for what is not linear.
            samples: Answers per picture.
            classes: A name or number, or several taken in turn; None for no class.
            damaged: The images are damaged already; what a mask hides of them is not looked at.
            options: Of the method, e.g. iterations=5.

        Returns:
            The samples, their mean and their band.
        """
        task = self.task(task) if isinstance(task, str) else task
        seeds = range(len(images))
        labels = None if classes is None else in_turn(seeds, classes_named(classes, self.classes))
        source, networks = self.run.counted_walk(self.use, self.device)
        _, y = measurement(task, images, damaged, seeds)
        return restore(
            source,
            task,
            y,
            method_of(method or usual_method(self.run.plan, task), **options),
            samples=conform("samples", samples, int),
            labels=measured_label(self.run.recipe, task, y, labels),
            sigma_data=self.run.plan.sigma_data,
            asked=networks,
        )

    def edit(
        self, images: Tensor, to: str | int | None = None, strength: float = 0.6, *, mask: Mask | None = None
    ) -> Pictures:
        """Noise pictures part of the way and walk down, perhaps to a class (SDEdit).

        Arguments:
            images: uint8 or float in [-1, 1], (B, C, H, W), a tensor or an array; picture i is noised by seed i.
            to: Class they become; None for none.
            strength: 0 is the picture, 1 a new sample.
            mask: Where they may change: bool (H, W), or as the task inpaint takes it; None for everywhere.
        """
        clean = in_floats(images)
        seeds = tuple(range(len(clean)))
        label = None if to is None else class_named(to, self.classes)
        labels = None if label is None else in_turn(seeds, [label])
        strength = conform("strength", strength, float)
        source = self.run.diffusion(use=self.use, device=self.device)
        made = edit(source, clean, strength, seeds=seeds, labels=labels, mask=mask)
        words = replace(self.run.making(self.use), done=said(source.grid, strength)).sentence
        return Pictures(to_uint8(made.cpu()), seeds, labels, self.run.title, words)

    def guided(self, weight: float, interval: tuple[float, float] | None = None) -> Model:
        """Return the model guided towards its classes.

        Arguments:
            weight: 1 means none, 0 unconditional, above 1 towards the class.
            interval: Guide only at sigma / alpha in [low, high]; None everywhere.
        """
        fields = [f"sample.guidance={weight}"]
        if interval is not None:
            fields.append(f"sample.interval={','.join(map(str, interval))}")
        return self.having(*fields)

    def sampled(
        self,
        sampler: str | Callable[..., Any],
        steps: int | None = None,
        grid: str | Callable[..., Any] | None = None,
        **options: Any,
    ) -> Model:
        """Return the model with another sampler, its options, and another grid.

        Arguments:
            sampler: A name of `sfumato list samplers`, "my_module:function", or a function
                (denoiser, x, grid, *, noise, label=None) that yields a State per step.
            steps: Number of steps of the grid.
            grid: A name of `sfumato list grids` or of a grid computed for the run, "my_module:function" or a function;
                the recipe's unless given.
            options: Options of the sampler, e.g. churn=40.

        Raises:
            UnknownNameError, OptionError: For a part that is not there or does not fit its axis, or another option.
        """
        recipe = self.run.recipe
        chosen = part("sampler", sampler).with_options(**options)
        walked = recipe.sample.grid if grid is None or isinstance(grid, str) else part("grid", grid)
        sample = replace(recipe.sample, sampler=chosen, grid=walked)
        model = replace(self, run=self.run.with_recipe(replace(recipe, sample=sample)))
        fields = [f"sample.grid={grid}"] if isinstance(grid, str) else []
        return model.having(*fields, *([] if steps is None else [f"sample.grid.steps={steps}"]))

    def having(self, *fields: str) -> Model:
        """Return the model with fields of its recipe's `sample` or `evaluate` set, as on the command line.

        Raises:
            RecipeError: For another field, or a value that does not fit.
        """
        for text in fields:
            if text.split(".")[0] not in ("sample", "evaluate"):
                raise RecipeError(f"{text} belongs to training, and this model is trained. Set sample.* or evaluate.*.")
        run = self.run.with_recipe(override(self.run.recipe, with_warnings(by_levels(self.run, fields))))
        say_changes(run, self.use)
        return replace(self, run=run)

    def evaluate(self, n: int | None = None, metrics: str | Sequence[str] = ("fd", "kid"), **options: Any) -> Result:
        """Score the model against real images, with interval, floor and protocol.

        Arguments:
            n: Generated images; None for the recipe's choice.
            metrics: Name of a metric, or several.
            options: Of `evaluation.evaluate`: split, extract, root, first_seed, quiet.
        """
        return score(self.run, n=n, metrics=several(metrics), use=self.use, device=self.device, **options)

    def probe(self, at: float | Sequence[float] = (), blocks: str | Sequence[str] = (), **options: Any) -> Result:
        """Measure what a linear classifier reads inside the network.

        Arguments:
            at: Noise level sigma / alpha, or several of them; () for several over those of training.
            blocks: Path of a block, or several; () for input, middle and output blocks.
            options: Of `evaluation.probe.probe`: n, m, split, root, batch, quiet.

        Returns:
            The tables "probe" and "probe, best", and the curve "probe".
        """
        levels = conform("at", several(at), tuple[float, ...])
        return probe(self.run, at=levels, blocks=several(blocks), use=self.use, device=self.device, **options)

    def likelihood(self, n: int = 100, **options: Any) -> dict[str, Any]:
        """Measure bits per dimension of real images.

        Arguments:
            n: Images of each split.
            options: Of `codelength.result.Asked`: splits, parts, steps.

        Returns:
            Tables by title, as `sfumato likelihood` prints them.
        """
        from sfumato.codelength.latents import bits_of_pixels as measure
        from sfumato.codelength.result import Asked

        listed: dict[str, Any] = {k: several(v) if k in ("splits", "parts", "seeds") else v for k, v in options.items()}
        tree, _ = measure(
            self.run, Asked(n=conform("n", n, int), **listed), use=self.use, device=self.device, quiet=True
        )
        return tree["tables"]

    def __repr__(self) -> str:
        shape = self.run.recipe.shape
        images = "" if shape is None else f", {shape.channels}x{shape.height}x{shape.width}"
        kinds = f", {len(self.classes)} classes" if self.classes else ", unlabelled"
        return f"Model({self.run.recipe.name!r}{images}{kinds}, {Making.of(self.run.recipe).how})"

    def _repr_html_(self) -> str:
        recipe = self.run.recipe
        rows = {
            "data": recipe.data.name,
            "schedule": recipe.schedule,
            "target": recipe.target,
            "network": recipe.network,
            **Making.of(recipe, self.use).pairs(),
            "classes": ", ".join(self.classes) or "(unlabelled)",
        }
        body = "".join(f"<tr><th>{k}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<b>{html.escape(recipe.name)}</b><table>{body}</table>"

    def _asked(
        self, n: int | Sequence[int], classes: str | int | Sequence[str | int] | None
    ) -> tuple[tuple[int, ...], Tensor | None]:
        """Return the seeds that `n` stands for, and a label for each."""
        asked = in_python(n)
        alone = isinstance(asked, str) or not isinstance(asked, Iterable)
        seeds = tuple(range(conform("n", asked, int)) if alone else (conform("A seed", seed, int) for seed in asked))
        if not seeds:
            raise RecipeError("There must be at least one image to make; got none.")
        if not -(2**63) <= min(seeds) <= max(seeds) < 2**63:
            raise RecipeError(f"A seed lies below 2^63; got {max(seeds, key=abs)}.")
        return seeds, in_turn(seeds, classes_named(classes, self.classes))


def load(path: Path | str, *, use: str | None = None, device: str | None = None) -> Model:
    """Open a trained model.

    Arguments:
        path: Directory of a run, or OWNER/NAME of a repository on the Hugging Face Hub.
        use: Which average of the weights; None for the recipe's choice.
        device: None for the best at hand.

    Raises:
        RecipeError: If there is no such run.
        ForeignError: If it is not on the Hub either.
    """
    where = device_named(device)
    local = Path(path).expanduser()
    if not local.exists() and REPOSITORY.fullmatch(str(path)) and not str(path).startswith("runs/"):
        return Model(Run.open(download(str(path))), use, where)
    return Model(Run.open(local), use, where)


def _embedded(picture: Image.Image, text: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    code = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{code}">'
