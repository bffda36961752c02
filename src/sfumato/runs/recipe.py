"""The types of a recipe: a frozen, typed tree of parts that says everything about a run.

A recipe names one part of each axis (a `Part`) and the numbers of the run. Every field can be overridden by its
dotted path (`runs.override`), checked against its type, or, for a part's options, against the signature of the
function it names. The tree is saved as JSON (`runs.recipe_json`) in the run and in every checkpoint, so that sampling
and evaluating need no flags.

    recipe = override(edm_digits(), ["train.images=50_000", "sample.sampler=heun", "sample.sampler.churn=40"])
"""

from __future__ import annotations

import hashlib
import json
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sfumato.core.bounds import (
    Batch,
    Bounds,
    Count,
    Depth,
    Fraction,
    Inside,
    NoLimit,
    NotNegative,
    Positive,
    Seed,
    Share,
    Size,
    Whole,
)
from sfumato.runs.part import Part, part, show
from sfumato.runs.part import RecipeError as RecipeError  # every user of a recipe may meet one
from sfumato.runs.recipe_json import earlier, from_json, to_json

Kept = typing.Annotated[int, Bounds(2, 2**53)]
Sampled = typing.Annotated[int, Bounds(2, 10_000_000)]
Width = typing.Annotated[float, Bounds(0, 0.28, "()")]  # of a power-function average
Channels = typing.Annotated[int, Bounds(1, 4)]
LatentChannels = typing.Annotated[int, Bounds(1, 4096)]
FILLED = frozenset({"name", "shape", "latent", "code", "learned", "chosen"})  # fields that a run or a search fills in


def _choice(axis: str, name: str) -> Any:
    """Declare a field that holds a part of an axis, and its default."""
    return field(default_factory=lambda: part(axis, name), metadata={"axis": axis})


def _name_on(axis: str, default: Any) -> Any:
    """Declare a field that holds the name of a part of an axis, or several."""
    return field(default=default, metadata={"axis": axis})


@dataclass(frozen=True)
class Data:
    """Which images are seen.

    Attributes:
        name: A dataset of `sfumato list data`, or "folder:PATH", "zip:PATH".
        size: Side in pixels to reduce or resize to; None for the dataset's own.
        pad: Side in pixels after padding with black; None for no padding.
        channels: 1 for grey or 3 for colour (2 or 4 with a kept alpha); None for the data's own.
        alpha: Treatment of transparent pixels in files: "refuse", lay on "black" or "white", "drop", or "keep" as a
            channel.
        cmyk: Treatment of files of four inks: "refuse", or "convert" without a colour profile.
        skip_bad: Whether files that cannot be read exactly are left out and counted, instead of refused.
        classes: Keep these classes only (names or numbers); () for all.
        first: Keep the first N training images; None for all.
        val: Share of the training part held out, by a hash of each image.
        test: The same for testing, where the source has no test part of its own; None for the dataset's default.
        labels: Whether the model is told the class; or a rule that gives every image a label in place of its class
            (axis labels), such as clusters, whose options follow: data.labels=clusters data.labels.count=20.
        attributes: Numbers of each image that the model is told: columns of the source's table, or ink, slant and
            width, which are measured (`data.told.attributes`).
        condition: The image that it is told beside: "low" or "low:K" (the image 4 or K times smaller), "grey", or
            "pairs:FOLDER" (`data.told.beside`).
        flip: Whether images are mirrored at random.
        augment: Chance of each of EDM's non-leaky changes (`data.augment`, which mirrors too); 0 for none. The network
            is told what was done.
        stream: Whether training images stay on disk and are decoded as they are needed; None if they do not fit into
            half of the free memory. The samples are the same.
        workers: Threads that decode ahead of a stream. The samples do not depend on it.
        latent: A run of an autoencoder, RUN, RUN@STEP or RUN@AVERAGE: the model is trained on its latents of the
            images, and what it makes is decoded; None for the images themselves.
    """

    name: str = _name_on("data", "digits")
    size: Size | None = None
    pad: Size | None = None
    channels: Channels | None = None
    alpha: typing.Literal["refuse", "black", "white", "drop", "keep"] = "refuse"
    cmyk: typing.Literal["refuse", "convert"] = "refuse"
    skip_bad: bool = False
    classes: tuple[str | int, ...] = ()
    first: Count | None = None
    val: Fraction = 0.0
    test: Fraction | None = None
    labels: bool | Part = field(default=True, metadata={"axis": "labels"})
    attributes: tuple[str, ...] = ()
    condition: str = "none"
    flip: bool = False
    augment: Share = 0.0
    stream: bool | None = None
    workers: Depth = 2
    latent: str | None = None

    @property
    def told_more(self) -> bool:
        """Whether a model is told more than a class: attributes, or an image beside the one that it makes."""
        return bool(self.attributes) or self.condition != "none"


@dataclass(frozen=True)
class Shape:
    """The image shape and classes of a model, filled in from the data when a run starts.

    A recipe for data of a known shape states it, so that it can be explained and counted without the data; data of
    another shape is then refused. Class names, and what is told beside a class, are taken from the data.

    Attributes:
        channels, height, width: Shape of an image.
        classes: Names of the classes that the model is told; () if it is unlabelled.
        null: Whether an unlabelled network adds a learned row for "no label" all the same: it began from the weights of
            a labelled one (`train.start`).
        attributes: Name, mean, standard deviation, least and greatest value in training of each number that it is told.
        beside: Shape of the image that it is told beside, at its own size; () for none.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()
    null: bool = False
    attributes: tuple[tuple[str, float, float, float, float], ...] = ()
    beside: tuple[int, ...] = ()


@dataclass(frozen=True)
class Chosen:
    """How a recipe was chosen among others by a score (`sfumato search`).

    Attributes:
        candidates: Number of recipes that were tried.
        by: Name of the score.
        n: Generated images that it was of.
        split: Split of the real images that chose.
        reference: Their identity (`evaluation.real.identity`).
    """

    candidates: Count
    by: str
    n: Count
    split: str
    reference: str


@dataclass(frozen=True)
class Latent:
    """The latents that a model is trained on, filled in from the run that `data.latent` names.

    A recipe states channels and factor so that it can be explained and counted without that run; latents of another
    form are then refused.

    Attributes:
        channels: Channels of a latent.
        factor: How many times smaller than the image's its sides are.
        shift: Mean of each channel over the training images, taken away before training; () until it is known.
        scale: Standard deviation of each channel, divided by; () until it is known.
        weights: sha256 of the autoencoder's weights, by which it is known again; "" until it is known.
    """

    channels: LatentChannels
    factor: Size
    shift: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    weights: str = ""


@dataclass(frozen=True)
class Train:
    """How long, how fast and how carefully a model is trained.

    Attributes:
        images: Budget in training images seen.
        minutes: Budget in minutes of wall time instead, preparation, sheets and scores included; schedules then follow
            the clock (not bit-exact to resume).
        batch: Global batch size: images per optimiser step over all devices and accumulation rounds.
        micro: Images per device in one forward pass; None for as many as the batch asks and memory holds.
        seed: Addresses every random number of the run.
        start: Weights to begin from: RUN, RUN@STEP, RUN@AVERAGE or RUN@STEP@AVERAGE; None for the network's own.
        freeze: Parts of the network that stay as they are, by path or pattern: "down", "down.*" (`networks._named`).
        rate_factors: What the learning rate is multiplied by for a part of the network: "label:10".
        optimizer: How the weights are changed in a step (axis optimizer).
        rate: The learning-rate schedule (axis rate).
        clip: Largest gradient norm; None for no clipping.
        compile: Whether torch compiles the network: "on", "off", or "auto": on one GPU (`training.fit_memory`).
        precision: "fp32", "bf16" (autocast; normalisation and weights stay fp32), or "bf16-winograd": as bf16, with
            fewer products in 3x3 convolutions, and their error doubled, on CPUs that gain by it (`networks._winograd`).
        log_every: Most images between records in metrics.jsonl; there are at least 50 records a run.
        save_every: Minutes between checkpoints.
        keep: Checkpoints kept, at least 2.
        sheet_every: Images between sample sheets; None for ten over the run.
        shard: Whether several processes divide weights, averages and optimiser among them (`training.shards`), for a
            network that outgrows one device; they hold copies otherwise. The result is the same but for rounding.
        evaluate_every: Images between scores of the averaged weights while training; None for none. The best weights
            are kept as a run of their own, RUN/best.
        track: Where records, scores and sheets go besides the run's own files (axis tracker).
        bad_in_a_row: Non-finite steps in a row after which the run rolls back, then stops.
    """

    images: Count = 1_000_000
    minutes: Positive | None = None
    batch: Batch = 64
    micro: Batch | None = None
    seed: Seed = 0
    start: str | None = None
    freeze: tuple[str, ...] = ()
    rate_factors: tuple[str, ...] = ()
    optimizer: Part = _choice("optimizer", "adam")
    rate: Part = _choice("rate", "constant")
    clip: Positive | None = None
    compile: typing.Literal["auto", "on", "off"] = "auto"
    precision: typing.Literal["fp32", "bf16", "bf16-winograd"] = "fp32"
    log_every: Count = 8192
    save_every: NoLimit = 5.0
    keep: Kept = 2
    sheet_every: Count | None = None
    shard: bool = False
    evaluate_every: Count | None = None
    track: tuple[str, ...] = _name_on("tracker", ())
    bad_in_a_row: Count = 20


@dataclass(frozen=True)
class Ema:
    """Which averages of the weights are kept (`training.ema`).

    Attributes:
        power: Relative widths of power-function averages (EDM2), e.g. (0.05, 0.10).
        half_life: Half-lives of exponential averages, in million images.
        warmup: An exponential half-life is at most this share of the images seen.
        use: The average that sampling takes: "power-0.10", "half-0.5", or "raw".
        snapshots: How often over the run the power averages are kept, so that one of any width can be made afterwards
            (`sfumato ema`); 0 for never. Two widths or more are needed.
    """

    power: tuple[Width, ...] = (0.05, 0.10)
    half_life: tuple[Positive, ...] = ()
    warmup: NotNegative = 0.05
    use: str = "power-0.10"
    snapshots: Whole = 0


@dataclass(frozen=True)
class Sample:
    """How images are made from the trained model unless told otherwise.

    Attributes:
        sampler: How the grid is walked (axis sampler).
        grid: Which levels it visits (axis grid).
        guidance: Classifier-free guidance weight; 1 means none. Names in its place, cfg or [cfg,my_module:sharpen], are
            kept in `guides`, and sample.guidance.w=1.5 is an option of theirs.
        guides: Further forms of guidance, in the order of their names (axis guidance).
        guidance_by_class: A weight per class in its place; () for the same for all.
        guidance_ramp: How that weight's surplus over 1 is spread over noise levels (`guidance.cfg.ramp`).
        interval: Guide only at nsr in [lo, hi]; None for every level.
        autoguidance: A weaker model to guide away from: RUN, RUN@STEP, RUN@AVERAGE or RUN@STEP@AVERAGE; without RUN, a
            checkpoint or average of the run itself; None for none.
        autoguidance_weight: Its weight; 1 means none.
        threshold: "static" clips the guided estimate of x0 to [-1, 1], "dynamic" shrinks it back by its quantile.
        threshold_quantile: Of |x0| over an image, for the dynamic form.
        classifier: Directory of a run of a noisy classifier that guides as well; None for none.
        classifier_scale: Its strength; 1 is Bayes' rule.
        size: Height and width in pixels, or one number for both; () for the size of training.
        batch: Images per forward pass; it does not change the images beyond rounding.
    """

    sampler: Part = _choice("sampler", "heun")
    grid: Part = _choice("grid", "karras")
    guidance: float = field(default=1.0, metadata={"parts": "guides"})
    guides: tuple[Part, ...] = field(default=(), metadata={"axis": "guidance"})
    guidance_by_class: tuple[float, ...] = ()
    guidance_ramp: typing.Literal["constant", "linear", "cosine"] = "constant"
    interval: tuple[NoLimit, NoLimit] | None = None
    autoguidance: str | None = None
    autoguidance_weight: float = 2.0
    threshold: typing.Literal["none", "static", "dynamic"] = "none"
    threshold_quantile: Inside = 0.995
    classifier: str | None = None
    classifier_scale: float = 1.0
    size: tuple[Size, ...] = ()
    batch: Batch = 128

    @property
    def by_weight(self) -> bool:
        """Whether classifier-free guidance is asked for."""
        return self.guidance != 1 or any(w != 1 for w in self.guidance_by_class)


@dataclass(frozen=True)
class Evaluate:
    """How the model is scored unless told otherwise.

    Attributes:
        extractor: Which features are compared (axis extractor).
        n: Generated images.
        quick: Generated images of a score while training (`train.evaluate_every`).
    """

    extractor: str = _name_on("extractor", "pixels")
    n: Sampled = 2000
    quick: Sampled = 500


@dataclass(frozen=True)
class Recipe:
    """Everything about a run; see the module docstring.

    Attributes:
        name: Of the recipe.
        data: Which images.
        schedule: How noise grows with time (axis schedule).
        target: What the network predicts (axis target).
        network: Which network is trained (axis network).
        c_noise: How the network is told its level (axis conditioning).
        c_in: Scale of the network's input: "one", for levels on the scale of training only; or what brings any level
            there: "unit-variance" (EDM), "unit-circle" (variance-preserving chains), "unit-line" (flow matching).
        variance: "none", or the learned variance "range" or "diagonal".
        draw: Which noise levels training visits, and how often (axis draw).
        weighting: How much an error counts at each noise level (axis weighting).
        objective: What training minimises (axis objective).
        sigma_data: Standard deviation of the data in [-1, 1]; None to estimate it once, when the run starts.
        train, ema, sample, evaluate: See their types.
        shape: Stated by a recipe for data of a known shape, else filled in when the run starts.
        latent: The same for the latents that `data.latent` asks for.
        code: Of data, extractor and trackers from outside this package, the name and the hash of its source; filled in
            when the run starts (`runs.resolve`).
        learned: Hash of the labels that were learned from the training images (`runs.labelled`); filled in when the run
            starts, "" where labels are the data's own.
        chosen: How this recipe was chosen among others; every score of its runs says so. None if it was not.
    """

    name: str
    data: Data = field(default_factory=Data)
    schedule: Part = _choice("schedule", "edm")
    target: Part = _choice("target", "edm")
    network: Part = _choice("network", "unet")
    c_noise: Part = _choice("conditioning", "quarter-log-nsr")
    c_in: typing.Literal["one", "unit-variance", "unit-circle", "unit-line"] = "unit-variance"
    variance: typing.Literal["none", "range", "diagonal"] = "none"
    draw: Part = _choice("draw", "lognormal")
    weighting: Part = _choice("weighting", "edm")
    objective: Part = _choice("objective", "denoising")
    sigma_data: Positive | None = None
    train: Train = field(default_factory=Train)
    ema: Ema = field(default_factory=Ema)
    sample: Sample = field(default_factory=Sample)
    evaluate: Evaluate = field(default_factory=Evaluate)
    shape: Shape | None = None
    latent: Latent | None = None
    code: tuple[tuple[str, str], ...] = ()
    learned: str = ""
    chosen: Chosen | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the tree as plain JSON values."""
        return typing.cast(dict[str, Any], to_json(self))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Rebuild a recipe from `to_json`; unknown or missing fields are errors."""
        return typing.cast(Self, from_json(cls, tree, "recipe"))

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON in its earliest spelling (`EARLIER`), 16 hex digits."""
        return hashlib.sha256(json.dumps(earlier(self.to_json()), sort_keys=True).encode()).hexdigest()[:16]


def differences(a: Any, b: Any, path: str = "") -> dict[str, tuple[str, str]]:
    """Return the dotted paths at which two recipes (or their trees) differ, with both values as text."""
    if isinstance(a, Recipe):
        a, b = a.to_json(), b.to_json()
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        found: dict[str, tuple[str, str]] = {}
        for key in dict.fromkeys([*a, *b]):
            found |= differences(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
        return found
    return {} if a == b else {path: (show(a), show(b))}
