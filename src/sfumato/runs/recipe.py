"""The types of a recipe: a frozen, typed tree of parts that says everything about a run.

A recipe names one entry of each room (a `Part`) and the numbers of the run. Every field can be overridden by its
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

from sfumato.core.find import check_options, conform, find, nearest, parse


class RecipeError(ValueError):
    """A recipe that cannot be built, or an override that does not fit it."""


@dataclass(frozen=True)
class Part:
    """Name an entry of a room and its options.

    Attributes:
        room: Where to find it, e.g. "samplers".
        name: Which entry, e.g. "heun".
        options: What differs from the entry's own defaults.
    """

    room: str
    name: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def entry(self) -> Callable[..., Any]:
        """Return the function this part names."""
        return find(self.room, self.name)

    def with_name(self, name: str) -> Part:
        """Return another entry of the same room, with its default options."""
        return Part(self.room, name.replace("_", "-"), {})

    def with_options(self, **options: Any) -> Part:
        """Return the part with options replaced, checked against the entry's signature."""
        checked = check_options(f"{self.room}.{self.name}", self.entry(), options)
        return Part(self.room, self.name, {**self.options, **checked})

    def __str__(self) -> str:
        inside = ", ".join(f"{k}={_show(v)}" for k, v in self.options.items())
        return f"{self.name}({inside})" if inside else self.name


def part(room: str, name: str, **options: Any) -> Part:
    """Make a part with options; they are checked when the recipe is validated or built."""
    return Part(room, name.replace("_", "-"), options)


@dataclass(frozen=True)
class Data:
    """Which images are seen.

    Attributes:
        name: A dataset of `sfumato list data`, or "folder:PATH", "zip:PATH".
        size: Side in pixels to reduce or resize to; None for the dataset's own.
        pad: Side in pixels after padding with black; None for no padding.
        classes: Keep these classes only (names or numbers); () for all.
        first: Keep the first N training images; None for all.
        val: Share of the training part held out, by a hash of each image.
        test: The same for testing, where the source has no test part of its own; None for the dataset's default.
        labels: Whether the model is told the class.
        flip: Whether images are mirrored at random.
        augment: Chance of each of EDM's non-leaky changes (`data.augment`, which mirrors too); 0 for none. The network
            is told what was done.
        stream: Whether training images stay on disk and are decoded as they are needed; None if they do not fit into
            half of the free memory. The samples are the same.
        workers: Threads that decode ahead of a stream. The samples do not depend on it.
    """

    name: str = "digits"
    size: int | None = None
    pad: int | None = None
    classes: tuple[str | int, ...] = ()
    first: int | None = None
    val: float = 0.0
    test: float | None = None
    labels: bool = True
    flip: bool = False
    augment: float = 0.0
    stream: bool | None = None
    workers: int = 2


@dataclass(frozen=True)
class Shape:
    """The image shape and classes of a model, filled in from the data when a run starts.

    A recipe for data of a known shape states it, so that it can be explained and counted without the data; data of
    another shape is then refused. Class names are taken from the data.
    """

    channels: int
    height: int
    width: int
    classes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Train:
    """How long, how fast and how carefully a model is trained.

    Attributes:
        images: Budget in training images seen.
        minutes: Budget in minutes of training instead; schedules then follow the clock (not bit-exact to resume).
        batch: Global batch size: images per optimiser step over all devices and accumulation rounds.
        micro: Images per device in one forward pass; None for as many as the batch asks and memory holds.
        seed: Addresses every random number of the run.
        start: Weights to begin from: RUN, RUN@STEP, RUN@AVERAGE or RUN@STEP@AVERAGE; None for the network's own.
        optimizer: Entry of `training.optim`.
        rate: Entry of `training.rates`: the learning-rate schedule.
        clip: Largest gradient norm; None for no clipping.
        compile: Whether torch compiles the network: "on", "off", or "auto": on one GPU (`training.fit_memory`).
        precision: "fp32" or "bf16" (autocast; normalisation and weights stay fp32).
        log_every: Images between records in metrics.jsonl.
        save_every: Minutes between checkpoints.
        keep: Checkpoints kept, at least 2.
        sheet_every: Images between sample sheets; None for ten over the run.
        shard: Whether several processes divide weights, averages and optimiser among them (`training.shards`), for a
            network that outgrows one device; they hold copies otherwise. The result is the same but for rounding.
        evaluate_every: Images between scores of the averaged weights while training; None for none. The best weights
            are kept as a run of their own, RUN/best.
        track: Where records, scores and sheets go besides the run's own files: entries of `training.trackers`.
        bad_in_a_row: Non-finite steps in a row after which the run rolls back, then stops.
    """

    images: int = 1_000_000
    minutes: float | None = None
    batch: int = 64
    micro: int | None = None
    seed: int = 0
    start: str | None = None
    optimizer: Part = field(default_factory=lambda: part("training.optim", "adam"))
    rate: Part = field(default_factory=lambda: part("training.rates", "constant"))
    clip: float | None = None
    compile: typing.Literal["auto", "on", "off"] = "auto"
    precision: typing.Literal["fp32", "bf16"] = "fp32"
    log_every: int = 8192
    save_every: float = 5.0
    keep: int = 2
    sheet_every: int | None = None
    shard: bool = False
    evaluate_every: int | None = None
    track: tuple[str, ...] = ()
    bad_in_a_row: int = 20


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

    power: tuple[float, ...] = (0.05, 0.10)
    half_life: tuple[float, ...] = ()
    warmup: float = 0.05
    use: str = "power-0.10"
    snapshots: int = 0


@dataclass(frozen=True)
class Sample:
    """How images are made from the trained model unless told otherwise.

    Attributes:
        sampler: Entry of `samplers`.
        grid: Entry of `grids`.
        guidance: Classifier-free guidance weight; 1 means none.
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

    sampler: Part = field(default_factory=lambda: part("samplers", "heun"))
    grid: Part = field(default_factory=lambda: part("grids", "karras"))
    guidance: float = 1.0
    guidance_by_class: tuple[float, ...] = ()
    guidance_ramp: typing.Literal["constant", "linear", "cosine"] = "constant"
    interval: tuple[float, float] | None = None
    autoguidance: str | None = None
    autoguidance_weight: float = 2.0
    threshold: typing.Literal["none", "static", "dynamic"] = "none"
    threshold_quantile: float = 0.995
    classifier: str | None = None
    classifier_scale: float = 1.0
    size: tuple[int, ...] = ()
    batch: int = 128

    @property
    def by_weight(self) -> bool:
        """Whether classifier-free guidance is asked for."""
        return self.guidance != 1 or any(w != 1 for w in self.guidance_by_class)


@dataclass(frozen=True)
class Evaluate:
    """How the model is scored unless told otherwise.

    Attributes:
        extractor: Entry of `metrics.extractors`.
        n: Generated images.
        quick: Generated images of a score while training (`train.evaluate_every`).
    """

    extractor: str = "pixels"
    n: int = 2000
    quick: int = 500


@dataclass(frozen=True)
class Recipe:
    """Everything about a run; see the module docstring.

    Attributes:
        name: Of the recipe.
        data: Which images.
        schedule: t -> level (rooms `schedules`).
        target: What the network is asked for (`core.target`).
        network: Entry of `networks`.
        c_noise: How the network is told its level (`conditioning`).
        c_in: Scale of the network's input: "one", for levels on the scale of training only; or what brings any level
            there: "unit-variance" (EDM), "unit-circle" (variance-preserving chains), "unit-line" (flow matching).
        variance: "none", or the learned variance "range" or "diagonal".
        draw: Distribution of levels in training (`draws`).
        weighting: Loss weight (`weightings`).
        objective: Entry of `objectives`.
        sigma_data: Standard deviation of the data in [-1, 1]; None to estimate it once, when the run starts.
        train, ema, sample, evaluate: See their types.
        shape: Stated by a recipe for data of a known shape, else filled in when the run starts.
    """

    name: str
    data: Data = field(default_factory=Data)
    schedule: Part = field(default_factory=lambda: part("schedules", "edm"))
    target: Part = field(default_factory=lambda: part("core.target", "edm"))
    network: Part = field(default_factory=lambda: part("networks", "unet"))
    c_noise: Part = field(default_factory=lambda: part("conditioning", "quarter-log-nsr"))
    c_in: typing.Literal["one", "unit-variance", "unit-circle", "unit-line"] = "unit-variance"
    variance: typing.Literal["none", "range", "diagonal"] = "none"
    draw: Part = field(default_factory=lambda: part("draws", "lognormal"))
    weighting: Part = field(default_factory=lambda: part("weightings", "edm"))
    objective: Part = field(default_factory=lambda: part("objectives", "denoising"))
    sigma_data: float | None = None
    train: Train = field(default_factory=Train)
    ema: Ema = field(default_factory=Ema)
    sample: Sample = field(default_factory=Sample)
    evaluate: Evaluate = field(default_factory=Evaluate)
    shape: Shape | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the tree as plain JSON values."""
        return typing.cast(dict[str, Any], _to_json(self))

    @classmethod
    def from_json(cls, tree: Mapping[str, Any]) -> Self:
        """Rebuild a recipe from `to_json`; unknown or missing fields are errors."""
        return typing.cast(Self, _from_json(cls, tree, "recipe"))

    @property
    def hash(self) -> str:
        """sha256 of the canonical JSON, 16 hex digits."""
        return hashlib.sha256(json.dumps(self.to_json(), sort_keys=True).encode()).hexdigest()[:16]


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
            raise RecipeError(f"{path}: an option of {node.room}.{node.name} has no fields of its own.")
        given = parse(value)
        several = typing.get_origin(typing.get_type_hints(node.entry()).get(key)) is tuple
        return node.with_options(**{key: (given,) if several and not isinstance(given, tuple) else given})
    names = {f.name: f for f in dataclasses.fields(node)}
    if key not in names:
        raise RecipeError(f"{path}: " + nearest("field", key, names))
    current = getattr(node, key)
    if rest:
        if not (dataclasses.is_dataclass(current) or isinstance(current, Part)):
            raise RecipeError(f"{path}: {key} = {_show(current)} has no field {'.'.join(rest)!r}.")
        return dataclasses.replace(node, **{key: assign(current, rest, value, path)})
    if isinstance(current, Part):
        chosen = current.with_name(value.strip())
        chosen.entry()  # refuses an unknown name
        return dataclasses.replace(node, **{key: chosen})
    hint = typing.get_type_hints(type(node))[key]
    if dataclasses.is_dataclass(current) and not (parse(value) is None and type(None) in typing.get_args(hint)):
        inner = ", ".join(f"{path}.{f.name}" for f in dataclasses.fields(current))
        raise RecipeError(f"{path} is a group of fields; set one of {inner}.")
    literal = typing.get_args(hint) if typing.get_origin(hint) is typing.Literal else ()
    parsed = value.strip() if hint is str or value.strip() in literal else parse(value)  # variance=none is a name
    if typing.get_origin(hint) is tuple and not isinstance(parsed, tuple):
        parsed = (parsed,)
    return dataclasses.replace(node, **{key: conform(path, parsed, hint)})


def _show(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ",".join(_show(v) for v in value) if value else "()"
    return f"{value:g}" if isinstance(value, float) else str(value).lower() if value in (True, False) else str(value)


def _to_json(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _to_json(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {k: _to_json(v) for k, v in sorted(value.items())}
    if isinstance(value, list | tuple):
        return [_to_json(v) for v in value]
    return value


def _from_json(cls: Any, tree: Any, path: str) -> Any:
    hints = typing.get_type_hints(cls)
    if not isinstance(tree, Mapping):
        raise RecipeError(f"{path} must be a JSON object; got {tree!r:.60}.")
    unknown = set(tree) - set(hints)
    if unknown:
        raise RecipeError(f"{path}: " + nearest("field", sorted(unknown)[0], hints))
    values = {}
    for key, value in tree.items():
        hint = hints[key]
        inner = next((a for a in (hint, *typing.get_args(hint)) if dataclasses.is_dataclass(a)), None)
        if inner is Part and isinstance(value, Mapping):
            values[key] = _part_from_json(value, f"{path}.{key}")
        elif inner is not None and isinstance(value, Mapping):
            values[key] = _from_json(inner, value, f"{path}.{key}")
        else:
            values[key] = conform(f"{path}.{key}", value, hint)
    fields = dataclasses.fields(cls)
    required = [f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING]
    if missing := [name for name in required if name not in values]:
        raise RecipeError(f"{path} must have the field {missing[0]!r}; got {', '.join(tree) or 'none'}.")
    return cls(**values)


def _part_from_json(tree: Mapping[str, Any], path: str) -> Part:
    room, name, options = (tree.get(key) for key in ("room", "name", "options"))
    if not (isinstance(room, str) and isinstance(name, str) and isinstance(options, Mapping)):
        raise RecipeError(f"{path} must have a room, a name and options; got {dict(tree)!r:.60}.")
    return Part(room, name, {k: tuple(v) if isinstance(v, list) else v for k, v in options.items()})
