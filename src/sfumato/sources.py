"""Makers of images: everything that can be judged is an `ImageSource`, (seeds, labels) -> uint8 images.

`Diffusion` walks a grid with a sampler, `Generated` asks a GAN's generator once, `Real` hands out the images of a
dataset split in a seeded order. Image i is a function of (seed_i, label_i) alone, up to the rounding of the batch's
matrix products; with the micro-batch fixed it is exact.
"""

from __future__ import annotations

import copy
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from operator import index
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, nn

from sfumato.core.condition import NULL, Condition, Label, is_null, part_of
from sfumato.core.denoiser import Counted, Denoiser, Sampler, State
from sfumato.core.find import UnknownNameError, nearest, several
from sfumato.core.images import to_uint8
from sfumato.core.level import Level, like
from sfumato.core.noise import SamplingNoise
from sfumato.data.dataset import Dataset
from sfumato.data.order import ranking
from sfumato.latent.space import Pixels, Space

CLEAN = Level.clean()

GOLDEN = (5**0.5 - 1) / 2  # its multiples, modulo 1, fill the unit interval most evenly


class Maker(Protocol):
    """A model that makes images: what commands ask of one, beyond `ImageSource`.

    Attributes:
        shape: Shape of one image, (C, H, W).
        classes: Number of classes the model knows; 0 if it is unlabelled.
        batch: Images per forward pass.
        quantisation: How floats become bytes, a rule of `core.images.to_uint8`.
    """

    shape: tuple[int, int, int]
    classes: int
    batch: int
    quantisation: str

    def floats(self, seeds: Sequence[int], labels: Label | None = None) -> Tensor:
        """Return float images, before quantisation."""
        ...

    def __call__(
        self, seeds: Sequence[int], labels: Label | None = None, *, progress: Callable[[int], None] | None = None
    ) -> Tensor:
        """Return uint8 images (B, C, H, W) on the CPU; `progress` is told of every finished micro-batch."""
        done = []
        for i in range(0, len(seeds), self.batch):
            part = slice(i, i + self.batch)
            images = self.floats(seeds[part], None if labels is None else labels[part])
            done.append(to_uint8(images, self.quantisation).cpu())
            if progress is not None:
                progress(len(done[-1]))
        return torch.cat(done) if done else torch.empty((0, *self.shape), dtype=torch.uint8)


M = TypeVar("M", bound=Maker)


class Diffusion(Maker):
    """Make images with a denoiser, a sampler and a grid.

    Arguments:
        denoiser: The denoiser, with its guidance wrapped around it.
        sampler: ``sampler(denoiser, x, grid, *, noise, label)``, options bound.
        grid: Levels from noisy to clean, shape (N + 1,).
        shape: Shape of one image (C, H, W), or the space that is walked: latents with what decodes them.
        classes: Number of classes the denoiser knows; 0 if it is unlabelled.
        batch: Images per forward pass.
        device: Device of the model.
        quantisation: How floats become bytes, a rule of `core.images.to_uint8`.
        weak: The weaker model that guides within `denoiser`, so that its calls can be counted; None for none.
        always_told: Parts of a condition that the denoiser has seen with every image, so that it needs them: "label",
            "vector", "image".
        vector: Numbers of a condition's vector that the denoiser knows; 0 for none.
        image: Shape (c, H, W) of a condition's image; () for none.
    """

    def __init__(
        self,
        denoiser: Denoiser,
        sampler: Sampler,
        grid: Level,
        shape: tuple[int, int, int] | Space,
        *,
        classes: int = 0,
        batch: int = 128,
        device: torch.device | str = "cpu",
        quantisation: str = "round",
        weak: Counted | None = None,
        always_told: Sequence[str] = (),
        vector: int = 0,
        image: tuple[int, ...] = (),
    ) -> None:
        self.always_told, self.told = always_told, {"vector": (vector,) if vector else (), "image": image}
        self.denoiser, self.sampler, self.grid, self.weak = denoiser, sampler, grid, weak
        self.space: Space = Pixels(shape) if isinstance(shape, tuple) else shape
        self.shape, self.classes, self.batch = self.space.image, classes, batch
        self.device, self.quantisation = torch.device(device), quantisation

    def having(
        self, *, denoiser: Denoiser | None = None, sampler: Sampler | None = None, grid: Level | None = None
    ) -> Diffusion:
        """Return the same maker with another denoiser, sampler or grid; what is None stays."""
        other = copy.copy(self)
        other.denoiser = self.denoiser if denoiser is None else denoiser
        other.sampler = self.sampler if sampler is None else sampler
        other.grid = self.grid if grid is None else grid
        return other

    def states(self, seeds: Sequence[int], labels: Label | None = None) -> Iterator[State]:
        """Yield the state after every step for one batch of seeds: the strip of the denoising, a progress bar.

        States are images, also where latents are walked: those are decoded (`latent.space`).

        Arguments:
            seeds: One seed per image.
            labels: One class per image, int64 (B,) in [-1, classes), a `Condition`, or None for no class.

        Raises:
            ValueError: For labels out of range, or labels given to an unlabelled model.
        """
        noise = self.noise(seeds)
        yield from self.walk(noise.start(), noise, labels)

    def noise(self, seeds: Sequence[int] | Tensor) -> SamplingNoise:
        """Return the noise of seeds in the space that is walked: the start and that of every step."""
        return SamplingNoise(torch.as_tensor(seeds, dtype=torch.int64), self.space.shape, device=self.device)

    def mixed(self, a: int, b: int, weights: Tensor, labels: Label | None = None) -> Iterator[State]:
        """Yield the states of images whose starts lie `between` those of two seeds; steps take the noise of `a`.

        Arguments:
            a: Seed at weight 0.
            b: Seed at weight 1.
            weights: Share of the second start, in [0, 1], shape (B,).
            labels: One class per image, int64 (B,) in [-1, classes), a `Condition`, or None for no class.
        """
        start, end = (self.noise([seed]).start() for seed in (a, b))
        noise = self.noise([a] * len(weights))
        yield from self.walk(between(start, end, weights), noise, labels)

    def walk(self, start: Tensor, noise: SamplingNoise, labels: Label | None = None) -> Iterator[State]:
        """Yield the state after every step from a start of one's own, such as one `between` two seeds'.

        Arguments:
            start: Unit normal noise in the space that is walked, shape (B, *space.shape).
            noise: Noise of the steps; a deterministic sampler does not use it.
            labels: One class per image, int64 (B,) in [-1, classes), a `Condition`, or None for no class.

        Raises:
            ValueError: For labels out of range, or labels given to an unlabelled model.
        """
        yield from map(self.shown, self.steps(start, noise, labels))

    def shown(self, state: State) -> State:
        """Return a state of the space that is walked as images."""
        return State(self.space.picture(state.x, state.level), state.level, self.space.picture(state.x0, CLEAN))

    def begin(self, seeds: Sequence[int]) -> Tensor:
        """Return the noisy images that seeds start from, at the first level of the grid, as states show them."""
        start = self.noise(seeds).start()
        return self.space.picture(like(self.grid[0].sigma, start) * start, self.grid[0])

    def steps(self, start: Tensor, noise: SamplingNoise, labels: Label | None = None) -> Iterator[State]:
        """Yield the states of `walk` in the space that is walked, not decoded. Arguments and errors as there."""
        labels = check_condition(labels, len(start), self.classes, self.told)
        for part in self.always_told:
            if (given := part_of(labels, part)) is None or bool(is_null(given).any()):
                raise ValueError(
                    f"{LACKING[part]} is asked for, which a model trained with objective.{part}_dropout=0 has "
                    f"never learned. {GIVE[part].format(self.classes)}, or train with objective.{part}_dropout=0.1."
                )
        x = like(self.grid[0].sigma, start) * start
        label = None if labels is None else labels.to(self.device)
        yield from without_gradients(self.sampler(self.denoiser, x, self.grid, noise=noise, label=label))

    def floats(self, seeds: Sequence[int], labels: Label | None = None) -> Tensor:
        """Return the final images of one batch as floats, not clipped, shape (B, C, H, W)."""
        noise = self.noise(seeds)
        with torch.no_grad():
            return self.space.decode(deque(self.steps(noise.start(), noise, labels), maxlen=1)[0].x)


def without_gradients(states: Iterable[State]) -> Iterator[State]:
    """Yield states that are made without gradients, while the caller's code keeps its own gradient mode."""
    generator = iter(states)
    while True:
        with torch.no_grad():
            state = next(generator, None)
        if state is None:
            return
        yield state


def watched(source: M, bar: Any, world: int = 1) -> tuple[M, Callable[[int], None]]:
    """Return a maker that moves a bar of images after every step of its sampler, and what is told of finished images.

    Arguments:
        source: Any maker; one that walks no grid moves the bar only when images are finished.
        bar: A bar with a total (`progress.bar_of`); what it counted before stays counted.
        world: Processes that take the same steps at the same time.
    """
    done = bar.n

    def move(images: float) -> None:
        bar.update(max(0, min(int(images), bar.total) - bar.n))

    def finished(images: int) -> None:
        nonlocal done
        done += images
        move(done)

    if not isinstance(source, Diffusion):
        return source, finished
    walk = source.sampler

    def sampler(denoiser: Denoiser, x: Tensor, grid: Level, **more: Any) -> Iterator[State]:
        for state in walk(denoiser, x, grid, **more):
            sigma, alpha = (part.reshape(-1)[0] for part in (state.level.sigma, state.level.alpha))
            passed = int((grid.sigma * alpha > sigma * grid.alpha).sum())  # levels of more noise than this one
            move(done + world * len(x) * passed / (len(grid) - 1))
            yield state

    return cast(M, source.having(sampler=sampler)), finished


class Generated(Maker):
    """Make images with a generator: one pass each.

    Arguments:
        generator: Called as generator(z, label); its `latents(ids)` gives z.
        shape: Shape of one image, (C, H, W).
        classes: Number of classes the generator knows; 0 if it is unlabelled.
        batch: Images per forward pass.
        device: Device of the model.
        quantisation: How floats become bytes, a rule of `core.images.to_uint8`.

    Attributes:
        rows: Images asked of the generator so far.
    """

    def __init__(
        self,
        generator: nn.Module,
        shape: tuple[int, int, int],
        *,
        classes: int = 0,
        batch: int = 128,
        device: torch.device | str = "cpu",
        quantisation: str = "round",
    ) -> None:
        self.generator, self.shape, self.classes, self.batch = generator, shape, classes, batch
        self.device, self.quantisation = torch.device(device), quantisation
        self.rows = 0

    @torch.no_grad()
    def floats(self, seeds: Sequence[int], labels: Label | None = None) -> Tensor:
        """Return the images of one batch as floats, shape (B, C, H, W).

        Arguments:
            seeds: One seed per image.
            labels: int64 (B,) in [0, classes), or None for an unlabelled generator.

        Raises:
            ValueError: For labels out of range, or missing: a labelled generator has never been without one.
        """
        chosen = part_of(check_condition(labels, len(seeds), self.classes, {"vector": (), "image": ()}), "label")
        if self.classes and (chosen is None or bool((chosen == NULL).any())):
            raise ValueError(
                f"This generator was trained with a label for every image, so it needs one in [0, {self.classes})."
            )
        self.rows += len(seeds)
        z = self.generator.latents(torch.as_tensor(seeds, dtype=torch.int64), device=self.device)  # type: ignore[operator]
        return self.generator(z, None if chosen is None else chosen.to(self.device))


class Real:
    """Hand out a dataset's images: seed i is the i-th of a seeded shuffle, so different seeds are different images.

    Arguments:
        dataset: The split whose images are handed out.
        shuffle: Seed of the order; the same split with another value is another draw.
    """

    def __init__(self, dataset: Dataset, shuffle: int = 0) -> None:
        self.dataset = dataset
        self.order = torch.from_numpy(ranking(len(dataset), shuffle, 0))

    def __call__(self, seeds: Sequence[int], labels: Label | None = None) -> Tensor:
        """Return the images of the seeds; labels are not chosen but found, so they must be None.

        Raises:
            ValueError: If a seed is outside the split or labels are given.
        """
        if labels is not None:
            raise ValueError("Real images come with their own labels. Restrict the dataset to classes instead.")
        if len(seeds) and not 0 <= min(seeds) <= max(seeds) < len(self.dataset):
            raise ValueError(
                f"{self.dataset.name} {self.dataset.split} has {len(self.dataset)} images, so seeds lie in "
                f"[0, {len(self.dataset)}); got {min(seeds)} to {max(seeds)}."
            )
        return self.dataset.images[self.order[torch.as_tensor(seeds, dtype=torch.int64)]]


def between(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Return starts on the great circle between two: unit normal again, as a straight line would not be.

    Arguments:
        a: Start at weight 0, shape (1, C, H, W).
        b: Start at weight 1, the same shape.
        weight: In [0, 1], shape (B,).

    Returns:
        Shape (B, C, H, W); at weights 0 and 1 exactly a and b.

    References:
        Shoemake. Animating Rotation with Quaternion Curves. 1985. https://doi.org/10.1145/325165.325242
        Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021, equation (67). https://arxiv.org/abs/2010.02502
    """
    x, y = a.flatten().double(), b.flatten().double()
    angle = torch.acos((x @ y / (x.norm() * y.norm())).clamp(-1, 1))
    w = weight.double().reshape(-1, 1, 1, 1).to(angle)
    if angle.sin().abs() < 1e-6:  # the same start twice: no circle, no difference
        mixed = torch.lerp(a.double(), b.double(), w)
    else:
        mixed = ((1 - w) * angle).sin() / angle.sin() * a.double() + (w * angle).sin() / angle.sin() * b.double()
    return mixed.to(a.dtype)


LACKING = {"label": "An image of no class", "vector": "An image without attributes", "image": "An image by itself"}
GIVE = {"label": "Give a class in [0, {})", "vector": "Name every attribute", "image": "Give the image that it is told"}


def check_condition(label: Label | None, count: int, classes: int, told: Mapping[str, tuple[int, ...]]) -> Label | None:
    """Return what each image is told, or raise a ValueError that names the rule.

    Arguments:
        label: Classes, or a `Condition`.
        count: Number of images.
        classes: Number of classes that the model knows.
        told: Shape of a vector and of an image that it is told, by part; () for a part that it is not told.
    """
    if not isinstance(label, Condition):
        return check_labels(label, count, classes)
    for part, shape in told.items():
        given = part_of(label, part)
        if given is not None and given.shape != (count, *shape):
            wanted = f"of shape {(count, *shape)}" if shape else "none: this model was trained without"
            raise ValueError(f"The {part} of a condition must be {wanted}; got {tuple(given.shape)}.")
    return replace(label, label=check_labels(label.label, count, classes))


def check_labels(labels: Tensor | None, count: int, classes: int) -> Tensor | None:
    """Return labels as int64 (count,), or raise a ValueError that names the rule."""
    if labels is None:
        return None
    given = torch.as_tensor(labels)
    labels = given.to(torch.int64)
    if not bool((labels == given).all()):
        raise ValueError(f"Labels are whole numbers, one per seed; got {given.dtype} with fractions.")
    if classes == 0:
        raise ValueError("This model was trained without labels, so it takes none. Leave the class out.")
    if labels.shape != (count,):
        raise ValueError(f"One label per seed: got {tuple(labels.shape)} labels for {count} seeds.")
    if count and not NULL <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"Labels lie in [0, {classes}) (or {NULL} for no class); got {int(labels.min())} to {int(labels.max())}."
        )
    return labels


def labels_by_share(seeds: Sequence[int], shares: Tensor) -> Tensor:
    """Return labels that occur in given shares, without sampling noise: each is a function of its seed and the shares.

    Arguments:
        seeds: Seeds of the images.
        shares: Share of each class, (K,), of sum 1.

    Returns:
        Labels, int64 (B,); those of m seeds in a row hold each class m times its share, within a few.

    >>> labels_by_share(range(8), torch.tensor([0.75, 0.25])).tolist()
    [0, 0, 0, 0, 1, 0, 0, 1]
    """
    u = (0.5 + GOLDEN * torch.tensor([seed % 2**32 for seed in seeds], dtype=torch.float64)) % 1
    edges = shares.double().cumsum(0)
    return torch.searchsorted(edges / edges[-1], u, right=True).clamp(max=len(shares) - 1)


def classes_named(wanted: str | int | Sequence[str | int] | None, known: Sequence[str]) -> list[int] | None:
    """Return the labels of the classes that a person asks for.

    Arguments:
        wanted: A number; or names and numbers, in a list, an array or a text with commas between them; None or
            nothing for every class, "none" for no class. -1 among others stands for no class. A text is first of all
            a name.
        known: Names of the model's classes; () if it is unlabelled.

    Returns:
        Labels in [-1, classes); None if no class is to be given.

    Raises:
        UnknownNameError: For a name the model does not know.
        ValueError: For a number out of range, or any class of a model that was trained without labels.

    >>> classes_named("bag, 0", ("coat", "bag")), classes_named(["bag", 0], ("coat", "bag"))
    ([1, 0], [1, 0])
    >>> classes_named("bag, black", ("coat", "bag, black")), classes_named("2", ("1", "10", "2"))
    ([1], [2])
    >>> classes_named([2, "2"], ("2", "10", "1")), classes_named(0, ("2", "10")), classes_named(torch.tensor([1]), "ab")
    ([2, 0], [0], [1])
    >>> classes_named(None, ("coat", "bag")), classes_named("none", ("coat",)), classes_named(None, ())
    ([0, 1], None, None)
    """
    if isinstance(wanted, str) and wanted.lower() == "none":
        return None
    if isinstance(wanted, str):
        wanted = [wanted] if wanted in known else wanted.split(",") if wanted else []  # a name may hold a comma
    words = () if wanted is None else several(wanted)
    if not words:
        return list(range(len(known))) or None
    labels = []
    for word in (each.strip() if isinstance(each, str) else index(each) for each in words):
        if isinstance(word, int):  # a number is none of the names, whatever they are
            labels.append(word)
        elif word in known:
            labels.append(list(known).index(word))
        elif re.fullmatch(r"-?\d{1,9}", word):
            labels.append(int(word))
        elif known:
            raise UnknownNameError(nearest("class", word, known))
    check_labels(torch.tensor(labels, dtype=torch.int64), len(labels), len(known))
    return labels


def class_named(wanted: str | int, known: Sequence[str]) -> int | None:
    """Return the label of the one class that a person asks for; None for "none". Arguments as for `classes_named`.

    Raises:
        ValueError: For several classes, or as `classes_named` does.

    >>> class_named("bag", ("coat", "bag")), class_named(0, ("coat", "bag")), class_named("none", ("coat", "bag"))
    (1, 0, None)
    """
    labels = classes_named(wanted, known)
    if labels is None:
        return None
    if len(labels) > 1:
        raise ValueError(f"Give one class; got {len(labels)}: {', '.join(class_names(labels, known))}.")
    return labels[0]


def in_turn(seeds: Sequence[int], chosen: Sequence[int] | None) -> Tensor | None:
    """Return a label per seed, int64 (B,): the chosen classes in turn, a function of the seed alone; None for none."""
    return None if chosen is None else torch.tensor([chosen[seed % len(chosen)] for seed in seeds], dtype=torch.int64)


def class_names(labels: Sequence[int] | Tensor | None, known: Sequence[str]) -> list[str]:
    """Return the class names of labels, "no class" for -1; [] if there are no labels."""
    return [] if labels is None else [known[label] if label != NULL else "no class" for label in map(int, labels)]
