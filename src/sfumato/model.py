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
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from tqdm.auto import tqdm

from sfumato.core.find import UnknownNameError, nearest
from sfumato.evaluation.scoring import Result
from sfumato.evaluation.scoring import evaluate as score
from sfumato.interop.hub import REPOSITORY, download
from sfumato.processes.machine import default_device
from sfumato.report import strip as walks
from sfumato.report.sheet import sheet
from sfumato.runs.override import override
from sfumato.runs.recipe import RecipeError, part
from sfumato.runs.run import Run

COLUMNS = 8
SHOWN = 64  # images that a notebook shows of many


@dataclass(frozen=True, eq=False)
class Pictures:
    """Hold sampled images.

    Attributes:
        images: uint8 (B, C, H, W).
        seeds: What made each.
        labels: int64 (B,), or None.
        title: Of the sheet.
    """

    images: Tensor
    seeds: tuple[int, ...]
    labels: Tensor | None = None
    title: str = ""

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        c, h, w = self.images.shape[1:]
        return f"Pictures({len(self)} images {c}x{h}x{w}, seeds {self.seeds[0]} to {self.seeds[-1]})"

    def sheet(self, columns: int = COLUMNS) -> Image.Image:
        """Return the images in rows, with a caption of their seeds."""
        return sheet(self.images, min(columns, len(self)), seeds=self.seeds, title=self.title)

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
        run: Its run.
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
        self, n: int | Sequence[int] = 8, classes: Sequence[str | int] | None = None, *, progress: bool = True
    ) -> Pictures:
        """Make images.

        Arguments:
            n: How many, seeds 0..n-1; or the seeds themselves.
            classes: Names or numbers taken in turn; None for all of them in turn.
            progress: Show a bar.

        Raises:
            UnknownNameError: For a class that the model does not know.
        """
        seeds = tuple(range(n)) if isinstance(n, int) else tuple(n)
        if not seeds:
            raise RecipeError("There must be at least one image to make; got none.")
        labels = self._labels(seeds, classes)
        with tqdm(total=len(seeds), unit="img", disable=not progress, leave=False) as bar:
            images = self.source(seeds, labels, progress=bar.update)
        return Pictures(images, seeds, labels, self.run.recipe.name)

    def steps(self, n: int | Sequence[int] = 4, classes: Sequence[str | int] | None = None) -> Image.Image:
        """Draw how images emerge: every row a seed, every column a step. Arguments as for `sample`."""
        seeds = tuple(range(n)) if isinstance(n, int) else tuple(n)
        labels = self._labels(seeds, classes)
        names = () if labels is None else [self.classes[int(k)] for k in labels]
        return walks.strip(self.source, seeds, labels, row_labels=names, title=self.run.recipe.name)

    def guided(self, weight: float, interval: tuple[float, float] | None = None) -> Model:
        """Return the model guided towards its classes.

        Arguments:
            weight: 1 means none, 0 unconditional, above 1 towards the class.
            interval: Guide only at sigma / alpha in [low, high]; None everywhere.
        """
        fields = [f"sample.guidance={weight}"]
        if interval is not None:
            fields.append(f"sample.interval={interval[0]},{interval[1]}")
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
            grid: A name of `sfumato list grids`, "my_module:function" or a function; the recipe's unless given.
            options: Options of the sampler, e.g. churn=40.

        Raises:
            UnknownNameError, OptionError: For a part that is not there or does not fit its axis, or another option.
        """
        recipe = self.run.recipe
        chosen = part("sampler", sampler).with_options(**options)
        walked = recipe.sample.grid if grid is None else part("grid", grid)
        sample = replace(recipe.sample, sampler=chosen, grid=walked)
        model = replace(self, run=self.run.with_recipe(replace(recipe, sample=sample)))
        return model.having(f"sample.grid.steps={steps}") if steps else model

    def having(self, *fields: str) -> Model:
        """Return the model with fields of its recipe's `sample` or `evaluate` set, as on the command line.

        Raises:
            RecipeError: For another field, or a value that does not fit.
        """
        for text in fields:
            if text.split(".")[0] not in ("sample", "evaluate"):
                raise RecipeError(f"{text} belongs to training, and this model is trained. Set sample.* or evaluate.*.")
        return replace(self, run=self.run.with_recipe(override(self.run.recipe, fields)))

    def evaluate(self, n: int | None = None, metrics: Sequence[str] = ("fd", "kid"), **options: Any) -> Result:
        """Score the model against real images, with interval, floor and protocol.

        Arguments:
            n: Generated images; None for the recipe's choice.
            metrics: Names of metrics.
            options: Of `evaluation.evaluate`: split, extract, root, first_seed, quiet.
        """
        return score(self.run, n=n, metrics=tuple(metrics), use=self.use, device=self.device, **options)

    def likelihood(self, n: int = 100, **options: Any) -> dict[str, Any]:
        """Measure bits per dimension of real images.

        Arguments:
            n: Images of each split.
            options: Of `codelength.result.Asked`: splits, parts, steps.

        Returns:
            Tables by title, as `sfumato likelihood` prints them.
        """
        from sfumato.codelength.result import Asked
        from sfumato.codelength.result import likelihood as measure

        tree, _ = measure(self.run, Asked(n=n, **options), use=self.use, device=self.device, quiet=True)
        tables: dict[str, Any] = tree["tables"]
        return tables

    def __repr__(self) -> str:
        shape = self.run.recipe.shape
        images = "" if shape is None else f", {shape.channels}x{shape.height}x{shape.width}"
        kinds = f", {len(self.classes)} classes" if self.classes else ", unlabelled"
        sample = self.run.recipe.sample
        return f"Model({self.run.recipe.name!r}{images}{kinds}, {sample.sampler} on {sample.grid})"

    def _repr_html_(self) -> str:
        recipe = self.run.recipe
        rows = {
            "data": recipe.data.name,
            "schedule": recipe.schedule,
            "target": recipe.target,
            "network": recipe.network,
            "sampler": recipe.sample.sampler,
            "grid": recipe.sample.grid,
            "guidance": recipe.sample.guidance,
            "classes": ", ".join(self.classes) or "(unlabelled)",
            "weights": self.use or recipe.ema.use,
        }
        body = "".join(f"<tr><th>{k}</th><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
        return f"<b>{html.escape(recipe.name)}</b><table>{body}</table>"

    def _labels(self, seeds: Sequence[int], classes: Sequence[str | int] | None) -> Tensor | None:
        if not self.classes:
            if classes is not None:
                raise RecipeError(f"{self.run.recipe.name} was trained without labels. Leave classes out.")
            return None
        known = {name: k for k, name in enumerate(self.classes)}
        wanted = list(range(len(known))) if classes is None else []
        for item in classes or ():
            if isinstance(item, str) and item not in known:
                raise UnknownNameError(nearest("class", item, known))
            wanted.append(known[item] if isinstance(item, str) else int(item))
        return torch.tensor([wanted[seed % len(wanted)] for seed in seeds], dtype=torch.int64)


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
    where = on_device(device)
    local = Path(path).expanduser()
    if not local.exists() and REPOSITORY.fullmatch(str(path)) and not str(path).startswith("runs/"):
        return Model(Run.open(download(str(path))), use, where)
    return Model(Run.open(local), use, where)


def on_device(device: str | None) -> str:
    """Return the name of a device: the one given, or the best available one."""
    return str(default_device()) if device is None else device


def _embedded(picture: Image.Image, text: str) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    code = base64.b64encode(buffer.getvalue()).decode()
    return f'<img alt="{html.escape(text)}" src="data:image/png;base64,{code}">'
