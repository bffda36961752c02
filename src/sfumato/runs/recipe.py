"""The types of a recipe: a frozen, typed tree of parts that says everything about a run.

A recipe names one part of each axis (a `Part`) and the numbers of the run. Every field can be overridden by its
dotted path (`runs.override`), checked against its type, or, for a part's options, against the signature of the
function it names. The tree is saved as JSON in the run and in every checkpoint, so that sampling and evaluating need no
flags.

    recipe = override(edm_digits(), ["train.images=50_000", "sample.sampler=heun", "sample.sampler.churn=40"])
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from sfumato.core import outside
from sfumato.core.axes import AXES, axis_named
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
from sfumato.core.find import check_options, conform, find, find_named, hints_of, nearest, options_of, parse


class RecipeError(ValueError):
    """A recipe that cannot be built, or an override that does not fit it."""


# Axis -> what runs saved before axes had names call it; the hash of a recipe is taken in this spelling still.
EARLIER = {
    "schedule": "schedules",
    "target": "core.target",
    "network": "networks",
    "conditioning": "conditioning",
    "draw": "draws",
    "weighting": "weightings",
    "objective": "objectives",
    "optimizer": "training.optim",
    "rate": "training.rates",
    "sampler": "samplers",
    "grid": "grids",
}


Kept = typing.Annotated[int, Bounds(2, 2**53)]
Sampled = typing.Annotated[int, Bounds(2, 10_000_000)]
Width = typing.Annotated[float, Bounds(0, 0.28, "()")]  # of a power-function average
Channels = typing.Annotated[int, Bounds(1, 4)]
LatentChannels = typing.Annotated[int, Bounds(1, 4096)]

MOST_SHOWN = 40  # values of an option that a table prints
# Fields added to the JSON since: left out while they are at their defaults, so that old trees stay equal.
LATER = (
    "code",
    "guides",
    "channels",
    "alpha",
    "cmyk",
    "skip_bad",
    "learned",
    "freeze",
    "rate_factors",
    "null",
    "chosen",
    "attributes",
    "condition",
    "beside",
    "latent",
)


@dataclass(frozen=True)
class Part:
    """Name a part of an axis and its options; make one with `part`.

    Attributes:
        axis: Its axis, e.g. "sampler".
        name: Its name on the axis, e.g. "heun", or "module.path:function".
        options: What differs from the part's own defaults.
        code: Hash of the source of a part from outside this package (`core.outside`); "" for the package's own.
    """

    axis: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)
    code: str = ""

    def entry(self) -> Callable[..., Any]:
        """Return the function this part names."""
        return find(self.axis, self.name, self.code)

    def with_name(self, name: str) -> Part:
        """Return another part of the same axis, with its default options."""
        return part(self.axis, name)

    def with_options(self, **options: Any) -> Part:
        """Return the part with options replaced, checked against the signature of its function."""
        checked = check_options(f"{self.axis}={self.name}", self.entry(), options, fixed=AXES[self.axis].fixed)
        return dataclasses.replace(self, options={**self.options, **checked})

    def __str__(self) -> str:
        inside = ", ".join(f"{k}={_show(v)}" for k, v in self.options.items())
        return f"{self.name}({inside})" if inside else self.name


def part(axis: str, name: str | Callable[..., Any], **options: Any) -> Part:
    """Make a part with options; they are checked when the recipe is validated or built.

    Arguments:
        axis: Such as "sampler".
        name: Of a part of that axis, "module.path:function", or a function itself. Whoever names it allows its module.
        options: Of the part.
    """
    axis = axis_named(axis)
    if not isinstance(name, str):
        name, code = outside.hand_over(name)
        outside.load(axis, name, code)
        return Part(axis, name, options, code)
    if ":" in name:
        return Part(axis, name.strip(), options, outside.code_of(find_named(axis, name.strip())))
    return Part(axis, name.replace("_", "-"), options)


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
        optimizer: How weights move (axis optimizer).
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
        schedule: t -> level.
        target: What the network is asked for.
        network: What is trained.
        c_noise: How the network is told its level (axis conditioning).
        c_in: Scale of the network's input: "one", for levels on the scale of training only; or what brings any level
            there: "unit-variance" (EDM), "unit-circle" (variance-preserving chains), "unit-line" (flow matching).
        variance: "none", or the learned variance "range" or "diagonal".
        draw: Distribution of levels in training (`draws`).
        weighting: Loss weight (`weightings`).
        objective: What training minimises.
        sigma_data: Standard deviation of the data in [-1, 1]; None to estimate it once, when the run starts.
        train, ema, sample, evaluate: See their types.
        shape: Stated by a recipe for data of a known shape, else filled in when the run starts.
        latent: The same for the latents that `data.latent` asks for.
        code: Of data, extractor and trackers from outside this package, the name and the hash of its source; filled in
            when the run starts (`runs.outside_names`).
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
        return typing.cast(dict[str, Any], _to_json(self))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Rebuild a recipe from `to_json`; unknown or missing fields are errors."""
        return typing.cast(Self, _from_json(cls, tree, "recipe"))

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON in its earliest spelling (`EARLIER`), 16 hex digits."""
        return hashlib.sha256(json.dumps(_earlier(self.to_json()), sort_keys=True).encode()).hexdigest()[:16]


def differences(a: Any, b: Any, path: str = "") -> dict[str, tuple[str, str]]:
    """Return the dotted paths at which two recipes (or their trees) differ, with both values as text."""
    if isinstance(a, Recipe):
        a, b = a.to_json(), b.to_json()
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        found: dict[str, tuple[str, str]] = {}
        for key in dict.fromkeys([*a, *b]):
            found |= differences(a.get(key), b.get(key), f"{path}.{key}" if path else str(key))
        return found
    return {} if a == b else {path: (_show(a), _show(b))}


def assign(node: Any, keys: list[str], value: str, path: str) -> Any:
    """Return a recipe, or a node of one, with one field replaced.

    Arguments:
        node: A recipe, a group of its fields, or a part.
        keys: Path of the field below the node.
        value: Text, read as the field's type.
        path: The whole path, for messages.

    Raises:
        RecipeError, OptionError: For an unknown field or an ill-typed value.
    """
    key, rest = keys[0], keys[1:]
    if isinstance(node, Part):
        if rest:
            raise RecipeError(f"{path}: an option of {node.axis}={node.name} has no fields of its own.")
        given = parse(value)
        several = typing.get_origin(hints_of(node.entry()).get(key)) is tuple
        return node.with_options(**{key: _several(given) if several else given})
    names = {f.name: f for f in dataclasses.fields(node)}
    if key not in names:
        raise RecipeError(f"{path}: " + nearest("field", key, names))
    current = getattr(node, key)
    if names[key].metadata.keys() & {"parts"} and (rest or not isinstance(parse(value), int | float)):
        return _assign_parts(node, names[key], rest, value, path)
    if rest:
        if not (dataclasses.is_dataclass(current) or isinstance(current, Part)):
            raise RecipeError(f"{path}: {key} = {_show(current)} has no field {'.'.join(rest)!r}.")
        return dataclasses.replace(node, **{key: assign(current, rest, value, path)})
    hint = typing.get_type_hints(type(node))[key]
    if hint is Part or (hint == bool | Part and isinstance(parse(value), str)):
        chosen = part(names[key].metadata["axis"], value.strip())
        chosen.entry()  # refuses an unknown name
        return dataclasses.replace(node, **{key: chosen})
    if "axis" in names[key].metadata:  # the name of a part, or several
        outside.allow_named(*value.split(","))
    if (
        dataclasses.is_dataclass(current)
        and not isinstance(current, Part)
        and not (parse(value) is None and type(None) in typing.get_args(hint))
    ):
        inner = ", ".join(f"{path}.{f.name}" for f in dataclasses.fields(current))
        raise RecipeError(f"{path} is a group of fields; set one of {inner}.")
    literal = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    parsed = value.strip() if hint is str or value.strip() in literal else parse(value)  # variance=none is a name
    if typing.get_origin(hint) is tuple:
        parsed = _several(parsed)
    return dataclasses.replace(node, **{key: conform(path, parsed, hint)})


def _several(parsed: Any) -> tuple[Any, ...]:
    """Return a value of a field that holds several: one stands for itself alone, none for no value."""
    return parsed if isinstance(parsed, tuple) else () if parsed is None else (parsed,)


def _assign_parts(node: Any, number: dataclasses.Field[Any], rest: list[str], value: str, path: str) -> Any:
    """Name the parts that stand beside a number, or set an option of the first of them that takes it."""
    beside = number.metadata["parts"]
    held: tuple[Part, ...] = getattr(node, beside)
    if not rest:
        axis = next(f.metadata["axis"] for f in dataclasses.fields(node) if f.name == beside)
        named = [] if parse(value) is None else value.strip().strip("[]()").split(",")
        chosen = tuple(part(axis, name.strip()) for name in named)
        for each in chosen:
            each.entry()  # refuses an unknown name
        return dataclasses.replace(node, **{beside: chosen, number.name: number.default})
    *of, option = rest
    for i, each in enumerate(held):
        known = options_of(each.entry(), fixed=AXES[each.axis].fixed)
        if option in known and of in ([], [each.name.replace("-", "_")]):
            new = (*held[:i], assign(each, [option], value, path), *held[i + 1 :])
            return dataclasses.replace(node, **{beside: new})
    here = ", ".join(str(each) for each in held) or "none"
    raise RecipeError(f"{path} is an option of a part named in {number.name}, and none takes it; named: {here}.")


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        if len(value) > MOST_SHOWN:
            return f"{_show(value[:2])},...,{_show(value[-1])} [{len(value)}]"
        return ",".join(_show(v) for v in value) if value else "()"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value in (True, False) else str(value)


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = (f for f in dataclasses.fields(value) if f.name not in LATER or getattr(value, f.name) != f.default)
        return {f.name: _to_json(getattr(value, f.name)) for f in kept}
    if isinstance(value, Mapping):
        return {k: _to_json(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_to_json(v) for v in value]
    return value


def _earlier(tree: Any) -> Any:
    """Return a tree of `to_json` with axes called as they were when recipes were first hashed."""
    if isinstance(tree, list):
        return [_earlier(value) for value in tree]
    if not isinstance(tree, Mapping):
        return tree
    named = {"room": EARLIER.get(tree["axis"], tree["axis"])} if "axis" in tree else {}
    return {key: _earlier(value) for key, value in tree.items() if key != "axis"} | named


def today(tree: Any) -> Any:
    """Return JSON of parts in today's spelling, as `to_json` writes it, where an earlier version wrote it.

    >>> today({"sampler": {"room": "samplers", "name": "heun", "options": {}}})
    {'sampler': {'axis': 'sampler', 'name': 'heun', 'options': {}}}
    """
    if isinstance(tree, list):
        return [today(value) for value in tree]
    if not isinstance(tree, Mapping):
        return tree
    axes = {module: axis for axis, module in EARLIER.items()}
    named = {"axis": axes.get(str(tree["room"]), tree["room"])} if {"room", "name", "options"} <= set(tree) else {}
    return named | {key: today(value) for key, value in tree.items() if not (named and key == "room")}


def _from_json(cls: Any, tree: Any, path: str) -> Any:
    hints = typing.get_type_hints(cls)
    if not isinstance(tree, Mapping):
        raise RecipeError(f"{path} must be a JSON object; got {tree!r:.60}.")
    unknown = set(tree) - set(hints)
    if unknown:
        raise RecipeError(f"{path}: " + nearest("field", sorted(unknown)[0], hints))
    fields = dataclasses.fields(cls)
    axes = {f.name: f.metadata.get("axis", "") for f in fields}
    values: dict[str, Any] = {}
    for key, value in tree.items():
        hint = hints[key]
        inner = next((a for a in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(a)), None)
        if inner is Part and not (isinstance(value, bool) and bool in typing.get_args(hint)):
            several = isinstance(value, list) and tuple in (
                hint,
                *map(typing.get_origin, (hint, *typing.get_args(hint))),
            )
            read = [_part_from_json(v, f"{path}.{key}", axes[key]) for v in (value if several else [value])]
            values[key] = tuple(read) if several else read[0]
        elif inner is not None and isinstance(value, Mapping):
            values[key] = _from_json(inner, value, f"{path}.{key}")
        else:
            values[key] = conform(f"{path}.{key}", value, hint)
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise RecipeError(f"{path} must have the field {missing[0]!r}; got {', '.join(tree) or 'none'}.")
    return cls(**values)


def _part_from_json(tree: Any, path: str, axis: str) -> Part:
    """Read a part of one axis; a file that names another is refused, so that it cannot decide what is called."""
    given, name, options, code = (
        (tree.get("axis", tree.get("room")), *(tree.get(key) for key in ("name", "options")), tree.get("code", ""))
        if isinstance(tree, Mapping)
        else (None,) * 4
    )
    if not (all(isinstance(text, str) for text in (given, name, code)) and isinstance(options, Mapping)):
        raise RecipeError(f"{path} must have an axis, a name and options; got {tree!r:.60}.")
    if given not in (axis, EARLIER.get(axis)):
        raise RecipeError(f"{path} must be a part of the axis {axis}; got one of {given!r:.60}. Restore this file.")
    return Part(axis, name, {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()}, code)
