"""The axes of the design space: where the parts of each stand, what they are called with and what they return.

This table is the one place that knows which module holds which axis: modules may move, saved runs name axes. A part is
a function of that module, or of any other (`sfumato.core.outside`), that can be called as its axis says:

    given      by position
    named      by name, always
    offered    by name, to a part that asks for it by a parameter of that name

Every other parameter of a part is an option, which a person may set and which has a default.
"""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass

from sfumato.core.errors import UnknownNameError, nearest


@dataclass(frozen=True)
class Axis:
    """Say how the parts of an axis are written.

    Attributes:
        module: Module or package below `sfumato` that holds them.
        returns: What a part returns, in words.
        given: Names of the values that a part is called with by position.
        named: Names of those that it is always called with by name.
        offered: Names of those that it is called with if it has such a parameter.
        constants: Names that the module of a part must define.
    """

    module: str
    returns: str
    given: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    constants: tuple[str, ...] = ()

    @property
    def fixed(self) -> tuple[str, ...]:
        """The parameters that the caller fills in: all that are no options."""
        return self.given + self.named + self.offered

    @property
    def where(self) -> str:
        """The file that a new part of this package goes into; a folder if any of its files may hold the part."""
        module = importlib.import_module(f"sfumato.{self.module}")
        several, path = getattr(module, "SEVERAL_PER_FILE", False), self.module.replace(".", "/")
        return f"src/sfumato/{path}{'/' if several else '/NAME.py' if '__path__' in vars(module) else '.py'}"

    @property
    def call(self) -> str:
        """How a part is called, such as "(denoiser, x, grid, *, noise, label)"."""
        return f"({', '.join([*self.given, *(('*', *self.named) if self.named else ())])})"


LEVELS = ("table", "schedule", "sigma_data", "variance")  # what a recipe offers to the parts that speak of levels
IMAGES = ("channels", "out_channels", "classes", "size", "augments", "vector", "extra")
TRAINING = ("draw", "weighting", "target", "seed", "batch", "images", "teacher")
SOURCE = ("path", "split", "root", "val", "test", "first", "size", "channels", "attributes")

AXES = {
    "recipe": Axis("recipes", "a Recipe"),
    "data": Axis("data", "a Dataset", offered=SOURCE),
    "labels": Axis("labels", "a Labelling, learned from training images", given=("shape",)),
    "schedule": Axis("schedules", "t -> Level, or a Table of a discrete chain"),
    "target": Axis("core.target", "a Target", offered=LEVELS + IMAGES),
    "network": Axis("networks", "a module called (x, c_noise, label)", offered=LEVELS + IMAGES),
    "conditioning": Axis("conditioning", "level -> c_noise", offered=LEVELS + IMAGES),
    "draw": Axis("draws", "a quantile function u -> Level", offered=LEVELS + IMAGES),
    "weighting": Axis("weightings", "(level, target) -> weight", offered=LEVELS + IMAGES),
    "objective": Axis(
        "objectives", "a function that returns a Loss", offered=LEVELS + IMAGES + TRAINING, constants=("TRAINS",)
    ),
    "optimizer": Axis("training.optim", "a list of torch optimisers", named=("network",)),
    "rate": Axis("training.rates", "(seen, spent) -> factor of the learning rate"),
    "tracker": Axis("training.trackers", "a Tracker", given=("folder", "recipe")),
    "sampler": Axis(
        "samplers",
        "an iterator of State(x, level, x0), one per step",
        given=("denoiser", "x", "grid"),
        named=("noise", "label"),
        offered=("shift", "snap"),
    ),
    "grid": Axis("grids", "a Level of shape (N + 1,), noisy to clean", offered=LEVELS + IMAGES),
    "guidance": Axis(
        *("guidance", "a denoiser"), given=("denoiser",), offered=("weak", "logits", "outside", "interval", "both")
    ),
    "task": Axis("tasks", "a Task", given=("shape",)),
    "method": Axis(
        "methods", "a denoiser of x0 given x and y", given=("denoiser", "task", "y"), offered=("sigma_data",)
    ),
    "extractor": Axis("metrics.extractors", "an Extractor", given=("shape",)),
    "metric": Axis("metrics.scores", "a Metric"),
    "table": Axis("evaluation.tables", "a Table of a run's images"),
    "picture": Axis("pictures", "a PIL image or a matplotlib figure", given=("run",), offered=("device", "root")),
    "study": Axis("studies", "a Study", offered=("scale",)),
    "family": Axis("interop.families", "an Imported, or None for a file of another family", given=("found",)),
    "export": Axis("interop.exports", "the names of the files it wrote", given=("run", "folder"), named=("use",)),
}


@functools.cache
def axis_named(word: str) -> str:
    """Return the name of an axis, given by that name, its plural or its module.

    Raises:
        UnknownNameError: With the nearest name.

    >>> axis_named("sampler"), axis_named("targets"), axis_named("training.optim")
    ('sampler', 'target', 'optimizer')
    """
    for name, axis in AXES.items():
        if word in (name, f"{name}s", axis.module, axis.module.rpartition(".")[2]):
            return name
    raise UnknownNameError(nearest("axis", word, AXES))
