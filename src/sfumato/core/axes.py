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
        about: What a part of it decides, in one sentence for a person who chooses.
        returns: What a part returns, in words.
        given: Names of the values that a part is called with by position.
        named: Names of those that it is always called with by name.
        offered: Names of those that it is called with if it has such a parameter.
        constants: Names that the module of a part must define.
    """

    module: str
    about: str
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
    "recipe": Axis(
        "recipes", "A recipe is one choice on every axis below: a published configuration, or ours.", "a Recipe"
    ),
    "data": Axis("data", "Which images the model learns from.", "a Dataset", offered=SOURCE),
    "labels": Axis(
        *("labels", "How images without a class get one.", "a Labelling, learned from training images"),
        given=("shape",),
    ),
    "schedule": Axis(
        "schedules",
        "How noise grows with time, from t = 0 (clean) to t = 1.",
        "t -> Level, or a Table of a discrete chain",
    ),
    "target": Axis(
        "core.target",
        "What the network predicts: the image, the noise, or a mixture.",
        "a Target",
        offered=LEVELS + IMAGES,
    ),
    "network": Axis(
        "networks", "Which network is trained.", "a module called (x, c_noise, label)", offered=LEVELS + IMAGES
    ),
    "conditioning": Axis(
        *("conditioning", "In which unit the network is told its noise level (the field c_noise).", "level -> c_noise"),
        offered=LEVELS + IMAGES,
    ),
    "draw": Axis(
        *("draws", "Which noise levels training visits, and how often.", "a quantile function u -> Level"),
        offered=LEVELS + IMAGES,
    ),
    "weighting": Axis(
        *("weightings", "How much an error counts at each noise level.", "(level, target) -> weight"),
        offered=LEVELS + IMAGES,
    ),
    "objective": Axis(
        *("objectives", "What training minimises.", "a function that returns a Loss"),
        offered=LEVELS + IMAGES + TRAINING,
        constants=("TRAINS",),
    ),
    "optimizer": Axis(
        "training.optim", "How the weights are changed in a step.", "a list of torch optimisers", named=("network",)
    ),
    "rate": Axis(
        "training.rates",
        "How the learning rate changes during training.",
        "(seen, spent) -> factor of the learning rate",
    ),
    "tracker": Axis(
        *("training.trackers", "Where the curves of a training are copied to (the field train.track).", "a Tracker"),
        given=("folder", "recipe"),
    ),
    "sampler": Axis(
        *(
            "samplers",
            "How a sample is computed from noise: the solver.",
            "an iterator of State(x, level, x0), one per step",
        ),
        given=("denoiser", "x", "grid"),
        named=("noise", "label"),
        offered=("shift", "snap"),
    ),
    "grid": Axis(
        *("grids", "Which noise levels a sampler visits.", "a Level of shape (N + 1,), noisy to clean"),
        offered=LEVELS + IMAGES,
    ),
    "guidance": Axis(
        *("guidance", "How a sample is pushed towards its class, or away from a weaker model.", "a denoiser"),
        given=("denoiser",),
        offered=("weak", "logits", "outside", "interval", "both"),
    ),
    "task": Axis("tasks", "How a picture was damaged, for `sfumato restore`.", "a Task", given=("shape",)),
    "method": Axis(
        *("methods", "How `sfumato restore` uses what is left of a damaged picture.", "a denoiser of x0 given x and y"),
        given=("denoiser", "task", "y"),
        offered=("sigma_data",),
    ),
    "extractor": Axis(
        *("metrics.extractors", "Which features of images are compared by a score; FD[digits] names its own."),
        *("an Extractor",),
        given=("shape",),
    ),
    "metric": Axis("metrics.scores", "Which scores `sfumato evaluate --metrics` computes.", "a Metric"),
    "table": Axis(
        "evaluation.tables",
        "What else `sfumato evaluate --metrics` asks of a run's images.",
        "a Table of a run's images",
    ),
    "picture": Axis(
        *("pictures", "What `sfumato picture NAME RUN` draws.", "a PIL image or a matplotlib figure"),
        given=("run",),
        offered=("device", "root"),
    ),
    "study": Axis(
        "studies", "Which question `sfumato study NAME` answers with trainings.", "a Study", offered=("scale",)
    ),
    "family": Axis(
        *(
            "interop.families",
            "Whose checkpoints `sfumato import` reads.",
            "an Imported, or None for a file of another family",
        ),
        given=("found",),
    ),
    "export": Axis(
        *(
            "interop.exports",
            "In which formats `sfumato export --to NAME` writes a run.",
            "the names of the files it wrote",
        ),
        given=("run", "folder"),
        named=("use",),
    ),
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
