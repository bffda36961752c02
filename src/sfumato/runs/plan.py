"""The plan of a recipe: its parts, each made once, and what each of them asked for.

A part is made when something first asks for it, with what it asks for by parameter name:

    table       levels of a discrete schedule, (1, 0) first       (grids.full, draws.uniform, conditioning.index)
    schedule    the schedule itself, t -> Level                   (grids.uniform, draws.uniform)
    sigma_data  standard deviation of the data                    (target edm, weighting edm)
    variance    the network's learned variance                    (objectives hybrid, vlb)
    draw, weighting, target, seed, batch, images, teacher         (objectives)
    channels, out_channels, classes, size, augments, vector, extra (networks)

Before a training `Plan.assemble` makes all that are read, in the order of a run. Checks, training, sampling, costs and
likelihood read the same plan. What only the data can tell (the shape, the classes, sigma_data) is filled in by
`Plan.resolved`, which makes anew only the parts that asked for what has changed.
"""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_module_registration_hook

from sfumato.core.axes import IMAGES, LEVELS, TRAINING
from sfumato.core.denoiser import Blank, unit_circle, unit_line, unit_variance
from sfumato.core.find import check_options, signature
from sfumato.core.level import Level, nearest_in
from sfumato.core.target import Target
from sfumato.data.augment import LABELS
from sfumato.networks._count import Shapes
from sfumato.networks._embeddings import keep_null_row
from sfumato.networks._layers import near_multiples, take_fewer_products
from sfumato.networks._valueless import Valueless
from sfumato.runs.kinds import Kind, RecipeCost, kind_of
from sfumato.runs.part import asked, asks, explained, option, parameters
from sfumato.runs.recipe import Latent, Part, Recipe, RecipeError, Shape


class Precision(NamedTuple):
    """How a network computes.

    Attributes:
        autocast: dtype of its products; None for that of its weights.
        fewer_products: Whether its 3x3 convolutions may take fewer of them (`networks._winograd`).
    """

    autocast: torch.dtype | None = None
    fewer_products: bool = False


OFFERED = LEVELS + IMAGES
TRAINED = OFFERED + TRAINING  # what objectives are offered
MADE_OF = {"table": ("schedule",), "out_channels": ("variance",), "teacher": ()}  # what is no field is made of fields
_COSTS: dict[str, RecipeCost] = {}
STAND_IN = 0.5  # for sigma_data until the data is known: nothing that is checked or counted depends on its value
LAYERS = 5_000
"""The most layers of a network; ADM's of 512 pixels has 556."""
PRECISIONS = {
    "fp32": Precision(),
    "bf16": Precision(torch.bfloat16),
    "bf16-winograd": Precision(torch.bfloat16, fewer_products=True),
}
SCALES: dict[str, Callable[..., Callable[[Level], Tensor] | None]] = {  # c_in -> what makes it, asked by parameter name
    "one": lambda: None,
    "unit-variance": unit_variance,
    "unit-circle": unit_circle,
    "unit-line": unit_line,
}


def plan(recipe: Recipe) -> Plan:
    """Return the plan of a recipe; nothing is made yet."""
    return Plan(recipe)


def divided(sides: tuple[int, int], factor: int, what: str, field: str) -> tuple[int, int]:
    """Return the sides of a latent, those of the image divided by the autoencoder's factor.

    Arguments:
        sides: Height and width in pixels.
        factor: How many times smaller a latent is.
        what: What asks for it, for the message.
        field: The field that sets the sides, for the message.

    Raises:
        RecipeError: If the factor does not divide them, with the nearest that it divides.
    """
    height, width = sides
    if height % factor or width % factor:
        heights, widths = (", ".join(map(str, near_multiples(side, factor))) for side in sides)
        raise RecipeError(
            f"{what} takes sides that are multiples of {factor}; got {height}x{width}. Nearest valid heights: "
            f"{heights}; widths: {widths} ({field})."
        )
    return height // factor, width // factor


def parts_of(recipe: Recipe) -> dict[str, Part]:
    """Return every part of a recipe by the name of its field, those of `train` and `sample` included."""
    nodes = (recipe, recipe.train, recipe.sample)
    found = {f.name: getattr(node, f.name) for node in nodes for f in dataclasses.fields(node)}
    return {name: value for name, value in found.items() if isinstance(value, Part)}


@dataclass(frozen=True, eq=False)
class Plan:
    """A recipe and its parts, each made once.

    Attributes:
        recipe: With its shape and sigma_data, or not resolved yet.
        asked: For each part made so far, what it asked for, by parameter name, and what was made.
    """

    recipe: Recipe
    asked: dict[str, tuple[Mapping[str, Any], Any]] = field(default_factory=dict, repr=False)

    def resolved(self, recipe: Recipe) -> Plan:
        """Return the plan of the recipe with what the data decides; parts that did not ask for it are kept.

        Arguments:
            recipe: This plan's, with its shape, classes and sigma_data filled in (`runs.resolve`).
        """
        parts = parts_of(recipe)
        return Plan(recipe, {name: made for name, made in self.asked.items() if parts[name] == self.parts[name]})

    @cached_property
    def kind(self) -> Kind:
        """What the objective trains."""
        return kind_of(self.recipe)

    @cached_property
    def parts(self) -> dict[str, Part]:
        """The parts by the names of their fields."""
        return parts_of(self.recipe)

    @cached_property
    def trained(self) -> frozenset[str]:
        """Names of the recipe's own fields that training reads: what its model or its objective asks for."""
        # the model is given a table where c_noise asks for it
        return self._reached(["objective", *(name for name in parameters(self.kind.model) if name != "table")])

    @cached_property
    def reads(self) -> frozenset[str]:
        """Names of the recipe's own fields that anything reads: training, or a walk from noise to images."""
        return self.trained | self._reached(["sampler", "grid"] if self.kind.walks else [])

    def _reached(self, names: list[str]) -> frozenset[str]:
        """Return the names, what they ask for, what that asks for, and so on."""
        found: set[str] = set()
        while names:
            name = names.pop()
            if name in found:
                continue
            found.add(name)
            names += MADE_OF.get(name, ())
            if name == "c_in":
                names += parameters(SCALES[self.recipe.c_in])
            if name in self.parts:
                names += asked(self.parts[name], self._offered(name))
        return frozenset(found)

    def _offered(self, name: str) -> tuple[str, ...]:
        return TRAINED if name == "objective" else () if name in ("schedule", "sampler", "rate") else OFFERED

    def _made(self, name: str, **more: Any) -> Any:
        """Make a part, or return it if it was made of the same things before."""
        part = self.parts[name]
        wanted = asked(part, self._offered(name))
        known = {key: value for key in wanted if key not in more and (value := getattr(self, key)) is not None}
        known |= {key: value for key, value in more.items() if key in wanted}
        return self._once(name, known, lambda: make(part, known))

    def _once(self, name: str, known: Mapping[str, Any], build: Callable[[], Any]) -> Any:
        if name not in self.asked or not _same(self.asked[name][0], known):
            self.asked[name] = known, build()
        return self.asked[name][1]

    def made(self, name: str) -> Any:
        """Return what the part of a field, or a parameter name, stands for; it is made if it was not."""
        return getattr(self, name)

    def assemble(self) -> None:
        """Make every part that training reads, in the order of a run: levels, objective, network, model, rate.

        Weights are left out: the network is made on the meta device, and called once without values.

        Raises:
            RecipeError, OptionError, ValueError: From a part that refuses its own options.
        """
        for name in ("schedule", "target", "c_noise", "draw", "weighting"):
            if name in self.reads:
                self.made(name)
        self.objective("meta")
        with explained(f"network={self.recipe.network}"):
            self.model(self.network)
            self._call()
        self.made("rate")

    def _call(self) -> None:
        """Call the network without values, with labels if it is told them: sizes that do not fit show there."""
        try:
            if self.kind.coder or not self.kind.levels:
                self.made("cost")
            if not self.kind.levels:
                return
            x = torch.empty(2, *self.walked, device="meta")
            label = torch.zeros(2, dtype=torch.int64, device="meta") if self.classes and self.kind.walks else None
            with Valueless(), Shapes():
                self.network(x, torch.zeros(2, device="meta"), label)
        except (ArithmeticError, LookupError, RuntimeError, AssertionError) as error:
            remedy = "Choose sizes that fit together; `sfumato explain` shows its options."
            if "meta tensor" in str(error):
                remedy = "It is counted without values first, so it may ask tensors for shapes and not for values."
            raise ValueError(
                f"it cannot take images of {'x'.join(map(str, self.image))} ({type(error).__name__}: "
                f"{str(error).splitlines()[0].rstrip('.!')}). {remedy}"
            ) from error

    # what parts ask for

    @property
    def shape(self) -> Shape:
        """The image shape and classes.

        Raises:
            RecipeError: If they are not known yet.
        """
        if self.recipe.shape is None:
            raise RecipeError(
                f"{self.recipe.name} is not resolved: its image shape comes from the data. Use resolve()."
            )
        return self.recipe.shape

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of what is trained on: images, or the latents that data.latent asks for."""
        latent, shape = self.latent, self.shape
        if latent is None:
            return shape.channels, shape.height, shape.width
        what = f"The autoencoder of data.latent={self.recipe.data.latent}"
        return latent.channels, *divided((shape.height, shape.width), latent.factor, what, "data.size or data.pad")

    @property
    def latent(self) -> Latent | None:
        """The latents that data.latent asks for; None for images.

        Raises:
            RecipeError: If they are asked for and not known yet.
        """
        if self.recipe.data.latent is None:
            return None
        if self.recipe.latent is None:
            raise RecipeError(
                f"{self.recipe.name} is not resolved: the form of its latents comes from data.latent="
                f"{self.recipe.data.latent}. Train that run, or state latent in the recipe."
            )
        known = self.recipe.latent
        held = {len(known.shift), len(known.scale)}
        if held not in ({0}, {known.channels}) or min(known.scale, default=1) <= 0:
            raise RecipeError(
                f"latent.shift and latent.scale hold one number for each of {known.channels} channels, the scale above "
                f"0; got {known.shift} and {known.scale}. Restore the recipe."
            )
        return known

    @property
    def walked(self) -> tuple[int, int, int]:
        """The shape (C, H, W) of what a sampler walks: an image of training, or the latent of a joint model."""
        return self.kind.walked(self.parts["network"], self.image)

    @property
    def in_latents(self) -> bool:
        """Whether a sampler walks latents, which are decoded."""
        return self.latent is not None or (self.kind.walks and self.kind.coder is not None)

    @property
    def factor(self) -> int:
        """How many times smaller than an image's are the sides of what a sampler walks."""
        return self.shape.height // self.walked[1]

    @property
    def sigma_data(self) -> float:
        """The standard deviation of the data, or a stand-in for it until that is known."""
        return STAND_IN if self.recipe.sigma_data is None else self.recipe.sigma_data

    @property
    def variance(self) -> str:
        """The learned variance of the network."""
        return self.recipe.variance

    @property
    def channels(self) -> int:
        """Channels of an image of training."""
        return self.image[0]

    @property
    def out_channels(self) -> int:
        """Channels of the network's output: twice an image's if a variance is learned."""
        return self.channels * (1 if self.recipe.variance == "none" else 2)

    @property
    def classes(self) -> int:
        """Number of classes the model is told; 0 without labels."""
        return len(self.shape.classes) if self.recipe.data.labels else 0

    @property
    def vector(self) -> int:
        """Number of attributes the model is told."""
        return len(self.recipe.data.attributes)

    @property
    def extra(self) -> int:
        """Channels of the image that the model is told beside; of a pair those of the images until it is known."""
        kind = self.recipe.data.condition.partition(":")[0]
        known = self.shape.beside[0] if self.shape.beside else self.shape.channels
        return {"none": 0, "grey": 1}.get(kind, known)

    @property
    def dropouts(self) -> dict[str, float | None]:
        """Share of training without each part of a condition that the model is told; None if never decided."""
        parts = {"label": self.classes, "vector": self.vector, "image": self.extra}
        return {part: option(self.parts["objective"], f"{part}_dropout") for part, size in parts.items() if size}

    @property
    def always_told(self) -> tuple[str, ...]:
        """Parts of a condition that the model has never done without."""
        return tuple(part for part, share in self.dropouts.items() if share == 0)

    @property
    def size(self) -> int:
        """Height of an image of training."""
        return self.image[1]

    @property
    def augments(self) -> int:
        """Numbers by which the network is told how images were changed."""
        return LABELS if self.recipe.data.augment else 0

    @property
    def two_levels(self) -> bool:
        """Whether the network is told where a step ends."""
        return bool(option(self.parts["network"], "two_levels"))

    @property
    def seed(self) -> int:
        """The seed of training."""
        return self.recipe.train.seed

    @property
    def batch(self) -> int:
        """Images of a step."""
        return self.recipe.train.batch

    @property
    def images(self) -> int:
        """The budget of training."""
        return self.recipe.train.images

    # parts

    @property
    def schedule(self) -> Callable[[Tensor], Level]:
        """The schedule, t -> level."""
        return self._made("schedule")

    @property
    def table(self) -> Level | None:
        """The levels of a discrete schedule, (1, 0) first; None if it is continuous."""
        table = getattr(self.schedule, "levels", None)
        return table if isinstance(table, Level) else None

    @property
    def known(self) -> Level | None:
        """The table if the network knows its levels only; None if it can be asked at any level."""
        return self.table if asks(self.parts["c_noise"], "table") else None

    @property
    def target(self) -> Target:
        """What the network is asked for."""
        return self._made("target")

    @property
    def c_noise(self) -> Callable[[Level], Tensor]:
        """How the network is told its level."""
        return self._made("c_noise")

    @property
    def c_in(self) -> Callable[[Level], Tensor] | None:
        """The scale of the network's input at a level; None for 1."""
        scale = SCALES[self.recipe.c_in]
        return scale(**{name: getattr(self, name) for name in parameters(scale)})

    @property
    def draw(self) -> Callable[[Tensor], Level]:
        """The levels of training, by quantile; it may have a memory, so a plan is trained once."""
        return self._made("draw")

    @property
    def weighting(self) -> Callable[..., Tensor]:
        """The weight of the loss."""
        return self._made("weighting")

    @property
    def grid(self) -> Level:
        """The levels that sampling visits, noisy to clean."""
        return self._made("grid")

    @property
    def rate(self) -> Callable[[int, float], float]:
        """The schedule of the learning rate."""
        return self._made("rate")

    @cached_property
    def sampler(self) -> Callable[..., Any]:
        """The sampler with its options bound."""
        return bound_sampler(self.parts["sampler"], **self.bound)

    @property
    def bound(self) -> dict[str, Any]:
        """What a sampler is given that only code can make: the nearest level that the network knows, if it asks."""
        known = self.known
        snaps = known is not None and asks(self.parts["sampler"], "snap")
        return {"snap": lambda level: nearest_in(known, level)} if snaps and known is not None else {}

    @cached_property
    def visited(self) -> Level:
        """The levels (N,) that the sampler asks for, walking the grid on one pixel with a stand-in for the network."""
        sample, blank, x = self.recipe.sample, Blank(self.variance), torch.zeros(1, 1, 1, 1)
        with explained(f"sample.sampler={sample.sampler} cannot walk sample.grid={sample.grid}"):
            grid, sampler = self.grid, self.sampler
            for _ in sampler(blank, x, grid, noise=lambda step: x):
                pass
            alphas, sigmas = zip(*((level.alpha.reshape(-1), level.sigma.reshape(-1)) for level in blank.levels))
            return Level(torch.cat(alphas), torch.cat(sigmas))

    def trained_levels(self, quantiles: Tensor) -> Level:
        """Return the levels of training, shape (N,): those at quantiles of the draw, or at t where none is drawn.

        Arguments:
            quantiles: In (0, 1), float64, shape (N,).
        """
        return self.draw(quantiles) if "draw" in self.trained else self.schedule(quantiles)

    # the network and what is made around it

    @property
    def network(self) -> nn.Module:
        """The network on the meta device: shapes without weights, for checks and counts."""
        known = {**self._network_asks(), "null": self.shape.null}
        return self._once("network", known, lambda: self.build_network("meta"))

    def _network_asks(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in asked(self.parts["network"], OFFERED)}

    @cached_property
    def cost(self) -> RecipeCost:
        """What the recipe costs, counted without computing anything, and once in a process for all recipes alike."""
        asked_for = [name for name in parameters(self.kind.cost) if name not in ("network", "size")]
        known = {name: option(self.parts["objective"], name) for name in asked_for}
        made_of = self.parts["network"], self._network_asks(), self.shape.null, self.recipe.train.precision
        key = repr((self.kind.name, self.image, known, made_of))
        if key not in _COSTS:
            _COSTS[key] = self.kind.cost(self.network, self.image, **known)
        return _COSTS[key]

    @property
    def precision(self) -> Precision:
        """How the network computes."""
        return PRECISIONS[self.recipe.train.precision]

    def build_network(self, device: torch.device | str = "cpu") -> nn.Module:
        """Make the network with weights initialised from the recipe's own seed, in channels_last.

        Arguments:
            device: Where it goes; on "meta" it has shapes and no weights, and costs no memory.

        Raises:
            RecipeError: If its options make no network, such as a width of 0; for weights, if sigma_data is not known
                yet.
        """
        part, meta = self.parts["network"], torch.device(device).type == "meta"
        if self.recipe.sigma_data is None and not meta:
            raise RecipeError(f"{self.recipe.name} is not resolved: its sigma_data comes from the data. Use resolve().")
        try:
            with bounded(), initialised(self.seed), torch.device("meta") if meta else nullcontext():
                network: nn.Module = make(part, self._network_asks())
                if self.shape.null:
                    keep_null_row(network)
                if self.precision.fewer_products:
                    take_fewer_products(network)
        except RecipeError:
            raise
        except (ArithmeticError, LookupError, RuntimeError, AssertionError) as error:
            raise RecipeError(
                f"network={part} cannot be built ({type(error).__name__}: {error}). Its sizes are counts of at "
                f"least 1; see `sfumato explain {self.recipe.name}`."
            ) from error
        return network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def model(self, network: nn.Module) -> Any:
        """Make what the objective trains around a network."""
        model = self.kind.model
        given: dict[str, Any] = {"network": network, "autocast": self.precision.autocast}
        asks_for = [name for name in parameters(model) if name not in given]
        others = {name: self.known if name == "table" else self.made(name) for name in asks_for}
        return model(**others, **{name: value for name, value in given.items() if name in parameters(model)})

    def objective(self, device: torch.device | str = "cpu") -> Callable[..., Any]:
        """Make the objective; one that owns learned numbers starts from the recipe's seed.

        Arguments:
            device: Of the learned numbers and of a teacher; "meta" to be checked only.
        """
        teacher: dict[str, Any] = {}
        if asks(self.parts["objective"], "teacher"):
            meta = torch.device(device).type == "meta"
            teacher["teacher"] = self.model(self.network if meta else self.build_network(device))
        with initialised(self.seed):
            objective: Callable[..., Any] = self._made("objective", **teacher)
        learns = isinstance(objective, nn.Module) and torch.device(device).type != "meta"
        return objective.to(device) if learns else objective  # type: ignore[attr-defined]


def make(part: Part, context: Mapping[str, Any]) -> Any:
    """Call the entry a part names with its options and with what it asks of the context.

    Raises:
        RecipeError: If the entry needs something the recipe does not have, or refuses its options without its name.
        OptionError: If an option does not fit its signature.
    """
    entry = part.entry()
    parameters = signature(entry).parameters
    known = {name: context[name] for name in asked(part, context)}
    options = check_options(f"{part.axis}={part.name}", entry, part.options)
    for p in parameters.values():
        if p.default is inspect.Parameter.empty and p.name not in known and p.name not in options:
            remedy = (
                "a discrete schedule, such as schedule=linear or schedule=cosine"
                if p.name == "table"
                else f"the option {p.name}=..."
            )
            where = f"{part.axis}={part.name}"
            raise RecipeError(f"{where} needs {p.name!r}, which this recipe does not have. Give {remedy}.")
    try:
        return entry(**known, **options)
    except ValueError as error:
        if type(error) is not ValueError or part.name in str(error):
            raise
        raise RecipeError(f"{part.axis}={part.name}: {error}") from error


def bound_sampler(part: Part, **bound: Any) -> Callable[..., Any]:
    """Return a sampler with its options bound, and others that only code can give (a shift)."""
    entry, options = part.entry(), part.checked(*bound) | bound
    return lambda denoiser, x, grid, *, noise, label=None: entry(denoiser, x, grid, noise=noise, label=label, **options)


@contextmanager
def bounded() -> Iterator[None]:
    """Refuse a network of more than `LAYERS` layers while it is built: a file may ask for any number.

    Raises:
        RecipeError: If there are more.
    """
    count = 0

    def counted(*_: object) -> None:
        nonlocal count
        count += 1
        if count > LAYERS:
            raise RecipeError(f"A network has at most {LAYERS:,} layers; this one has more. Give it fewer blocks.")

    handle = register_module_module_registration_hook(counted)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def initialised(seed: int) -> Iterator[None]:
    """Address torch's own generator, from which layers initialise, by a recipe's seed; leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _same(a: Mapping[str, Any], b: Mapping[str, Any]) -> bool:
    """Return whether two parts were made of the same things: the same objects, or equal numbers and names."""
    return a.keys() == b.keys() and all(
        a[key] is b[key] or (isinstance(a[key], int | float | str) and a[key] == b[key]) for key in a
    )
