"""``sfumato encode``: real images as noise, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, Overrides, device_named, refusal, settled, typed
from sfumato.runs.drawn import SAMPLES

if TYPE_CHECKING:
    from sfumato.runs.run import Run

STEPS = "10,20,50,100"


def encode(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Overrides = (),
    *,
    n: int = 8,
    steps: Annotated[str, arg(metavar="N1,N2,...")] = STEPS,
    split: str = "test",
    first: int = 0,
    grid: Name = None,
    use: Name = None,
    out: Folder = None,
    device: Name = None,
    data_root: Folder = None,
) -> int:
    """Encode real images as noise by deterministic DDIM run backwards, and decode them again.

    The walk is an ODE, so in the limit of many steps the noise gives back its image and is unit normal. The table says
    how far both are from that; the picture shows images, their noise and what came back.

    Arguments:
        run: Directory of a run.
        overrides: Fields of `sample` to set, e.g. grid.sigma_max=20.
        n: How many images.
        steps: Numbers of steps to try, separated by commas.
        split: Which real images: test, val or train.
        first: Position of the first one in the split's own order.
        grid: Grid to walk; the recipe's if it takes a number of steps, else respaced.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        out: Path of the PNG; RUN/samples/encoded.png unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
    """
    print(f"sfumato encode {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.progress import bar_of
    from sfumato.report import inversion
    from sfumato.report.save import place, save
    from sfumato.report.table import text_table
    from sfumato.runs.resolve import load_data
    from sfumato.runs.run import Run
    from sfumato.sources import Real

    opened = Run.open(run)
    opened.require_walk()
    target = place(out or opened.path / SAMPLES / "encoded.png")
    where = device_named(device)
    walks = {count: _walk(opened, count, grid, overrides) for count in _counts(steps)}
    data = load_data(opened.recipe, split, data_root)
    if first < 0 or n < 1 or first + n > len(data):
        raise refusal(f"{data.name} {split} has {len(data)} images; got --first {first} --n {n}.")
    chosen = Real(data).order[first : first + n]
    images = data.images[chosen]
    labels = data.labels[chosen] if data.labels is not None and opened.recipe.data.labels else None
    denoiser = opened.denoiser(use, where)
    found = {}
    for count, walk in bar_of(None, "walk", iterable=walks.items(), leave=False):
        found[count] = inversion.round_trip(walk.source(use=use, device=where, denoiser=denoiser), images, labels)
    print(text_table([inversion.row(count, trip) for count, trip in found.items()]))
    caption = f"{data.name} {split}, images {first}..{first + n - 1} of its shuffled order."
    picture = inversion.picture(images, found, title=opened.title, caption=caption)
    print(f"  {save(picture, target, command=typed())}")
    return 0


def _counts(text: str) -> list[int]:
    words = [word.strip() for word in text.split(",")]
    if not all(word.isdecimal() and int(word) > 1 for word in words):
        raise refusal(f"--steps lists numbers of steps of at least 2, such as {STEPS}; got {text!r}.")
    return [int(word) for word in dict.fromkeys(words)]


def _walk(run: Run, steps: int, grid: str | None, overrides: Sequence[str]) -> Run:
    """Return the run as deterministic DDIM walks it in so many steps."""
    from sfumato.runs.part import asks

    own = "respaced" if grid is None and not asks(run.recipe.sample.grid, "steps") else grid
    fields = ["sampler=ddim", *([f"grid={own}"] if own else []), f"grid.steps={steps}", *overrides]
    return settled(run, fields, ("sample",))
