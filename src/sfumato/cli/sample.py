"""``sfumato sample``: images from a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import (
    Count,
    Folder,
    Name,
    Overrides,
    Text,
    device_named,
    given,
    refuse_idle,
    seed_list,
    settled,
    typed,
)
from sfumato.runs.drawn import SAMPLES

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.core.condition import Label
    from sfumato.data.dataset import Dataset
    from sfumato.processes.ranks import Ranks
    from sfumato.runs.run import Run
    from sfumato.sources import Diffusion, Maker

COLUMNS = 8  # images in a row of a sheet
SHEET, STRIP = 64, 4  # images of a sheet without classes and rows of a strip unless told otherwise
MOST_ROWS = 16  # of a strip, or classes of a sheet; more do not fit a screen


def sample(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Overrides = (),
    *,
    n: Count = None,
    seeds: Text = None,
    classes: Text = None,
    sampler: Name = None,
    grid: Name = None,
    steps: Count = None,
    guidance: Text = None,
    use: Name = None,
    out: Folder = None,
    strip: bool = False,
    gif: bool = False,
    images: Folder = None,
    like: Annotated[str | None, arg(metavar="PICTURE", help_behavior_hint="")] = None,
    where: Text = None,
    like_image: Annotated[str | None, arg(metavar="PICTURE", help_behavior_hint="")] = None,
    data_root: Folder = None,
    device: Name = None,
) -> int:
    """Sample a run: a sheet of images, a strip or animation of the denoising, or one PNG a seed.

    The image of a seed does not depend on how many are made with it; processes started by torchrun share the
    seeds. Sampling fields can be set by name; nothing is retrained:
    sfumato sample RUN sampler=heun sampler.churn=40 grid.steps=50

    Guidance composes: --guidance, --guidance-by-class, --guidance-ramp, --interval, --autoguidance RUN or @STEP, also
    with --threshold dynamic and --classifier RUN. --size 56 samples a convolutional network at another size.

    A PNG made by --images or by the playground says how it was made: sfumato sample RUN --like PICTURE.png
    makes it again and compares.

    Arguments:
        run: Directory of a run.
        overrides: Fields of `sample` to set, e.g. sampler.churn=40.
        n: How many images; 8 a class unless given, or 64.
        seeds: Which seeds: 0:64 (64 left out), 7, or a list such as 0:8,100:108; the first n unless given.
        classes: Class names or numbers taken in turn, e.g. 0,3 or bag,coat; none for no class; all unless given.
        sampler: Sampler with its default options; see `sfumato list samplers`.
        grid: Grid with its default options, see `sfumato list grids`, or one computed for the run, e.g. computed-6.
        steps: Steps of the grid.
        guidance: Classifier-free guidance weight: 1 none, 0 unconditional, above 1 towards the class; or names of
            forms, cfg or [cfg,my_module:sharpen].
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        out: Where the picture goes (.png; the strip and the animation beside it); RUN/samples/ unless given.
        strip: Also draw how the first 4 seeds emerge (with --seeds or --n: up to 16).
        gif: Also animate it.
        images: Folder for one verified PNG a seed instead of a sheet; run again, it makes only what is missing.
        like: A picture to make again with its own settings; only --out and --device may be given with it.
        where: Attributes that every image is to have, e.g. smiling=1,male=0 or ink=2sd, two deviations above the mean;
            those that are not named are left open.
        like_image: The image that a model of data.condition is told, e.g. one in low resolution; those of test images
            unless given.
        data_root: Where test images are found for that; the variable SFUMATO_DATA or the cache unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
    """
    if images is not None:
        refuse_idle(sample, locals(), ("out", "strip", "gif"), "One file an image (--images)")
    print(f"sfumato sample {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.cli._next import scoring, show_next
    from sfumato.processes.ranks import join
    from sfumato.report.save import place
    from sfumato.report.seed_folder import file_of
    from sfumato.runs.run import Run

    opened = Run.open(run)
    at = device_named(device)
    ranks, own = join(at)
    if like is not None:
        from sfumato.cli._like import again
        from sfumato.core.find import OptionError

        others = (n, seeds, classes, sampler, grid, steps, guidance, use, images, where, like_image)
        if overrides or strip or gif or any(other is not None for other in others):
            raise OptionError("--like takes every setting from the picture; only --out and --device go with it.")
        if ranks.first:  # one picture is not shared
            print(f"  {again(opened, Path(like), Path(out) if out else None, at)}")
        return 0
    from sfumato.data.told.attributes import parse
    from sfumato.runs.resolve import load_data
    from sfumato.sources import classes_named

    chosen = given(sampler=sampler, grid=grid, grid__steps=steps, guidance=guidance)
    folder = opened.path / SAMPLES / opened.making().stem(opened.recipe.ema.use)  # of images by the recipe alone
    opened = settled(opened, [*chosen, *overrides], ("sample",), use)
    picked = classes_named(classes, opened.classes)
    wanted = seed_list(seeds, n, COLUMNS * len(picked) if picked and len(picked) <= MOST_ROWS else SHEET)
    image = None if like_image is None else _told_image(opened, Path(like_image))
    said = {} if where is None else parse(where)
    lender = opened.lender(said, image, partial(load_data, opened.recipe, "test", data_root))
    drawn = Drawn(opened, wanted, picked, use, said, image, lender, classes is not None)
    for line in drawn.unseen if ranks.first else ():
        print(f"  {line}")
    walk = opened.diffusion(use=use, device=own) if strip or gif else None
    source = walk or opened.source(use=use, device=own)
    if images is not None:
        _write_images(drawn, source, Path(images), at, ranks)
        needed = opened.plan.always_told if opened.plan.kind.walks else ("all",)
        if set(needed) <= {"label"}:  # a picture is restored under a class, not under numbers or an image
            picture, labels = str(Path(images) / file_of(wanted[0])), drawn.labels
            words = ["--classes", opened.classes[int(labels[0])]] if needed and labels is not None else []
            purpose = "hide half of one and fill it in"
            show_next((["restore", run, picture, "task=inpaint", "mask=half", *words], purpose))
        return 0
    target = place(out or opened.path / SAMPLES / f"{opened.making(use).stem(opened.recipe.ema.use)}.png")
    print(f"  {draw_sheet(drawn, source, target, ranks)}")
    if ranks.first and walk is not None:
        few = replace(drawn, seeds=wanted[:MOST_ROWS] if seeds or n else wanted[:STRIP])
        for path in draw_walk(few, walk, target, strip=strip, gif=gif):
            print(f"  {path}")
    show_next(
        scoring(opened, None, *chosen, *overrides, *(["--use", use] if use else [])),
        (["picture", "strip" if opened.plan.kind.walks else "sheet", run], "another picture (`sfumato list pictures`)"),
        (["sample", run, "--n", "8", "--images", str(folder)], "one file for each image"),
    )
    return 0


def _told_image(run: Run, path: Path) -> Tensor:
    """Read the image that a model is told, at its own size or that of the model's images."""
    from sfumato.core.find import OptionError
    from sfumato.interop.pictures import read_picture

    shape = run.recipe.shape
    if shape is None or not shape.beside:
        raise OptionError(f"{run.path} is told no image (data.condition=none): leave --like-image out.")
    shapes = [shape.beside, (shape.beside[0], shape.height, shape.width)]
    return read_picture(path, shapes, remedy="Resize it.")


@dataclass(frozen=True)
class Drawn:
    """Which images of a run are drawn.

    Attributes:
        run: A trained run, sampled as its recipe says.
        seeds: One seed per image.
        picked: Classes taken in turn; None for no class.
        use: The average of the weights; None for the recipe's choice.
        where: Attributes that all of them are to have, by name.
        image: The image that the model is told beside; None for none that is given.
        lender: Real images that lend what the model is told and is not given.
        chosen: Whether somebody chose the classes.
    """

    run: Run
    seeds: list[int]
    picked: list[int] | None
    use: str | None = None
    where: Mapping[str, str] = field(default_factory=dict)
    image: Tensor | None = None
    lender: Dataset | None = None
    chosen: bool = False

    @property
    def labels(self) -> Tensor | None:
        """One class per seed, int64 (B,)."""
        from sfumato.sources import in_turn

        return in_turn(self.seeds, self.picked)

    @cached_property
    def told(self) -> Label | None:
        """What each image is made under."""
        return self.run.named(self.seeds, self.labels, self.where, self.image, self.lender, self.chosen)

    @property
    def unseen(self) -> list[str]:
        """What is asked for outside what training saw, a sentence each."""
        from sfumato.runs.conditions import outside

        return outside(self.run.recipe, self.where)

    @property
    def caption(self) -> str:
        """How the images are made."""
        named = ", ".join(f"{name}={value}" for name, value in self.where.items())
        return " ".join(filter(None, [named and f"Where {named}.", self.run.making(self.use).sentence]))


def draw_sheet(drawn: Drawn, source: Maker, target: Path, ranks: Ranks | None = None) -> Path:
    """Draw a sheet with a row per class, or rows of eight without classes, and return its path.

    Arguments:
        drawn: Which images.
        source: Makes them.
        target: Path of the PNG.
        ranks: The processes that make the images; the first draws. One unless given.

    Raises:
        NonFiniteError: If any image holds NaN or infinity; nothing is written.
    """
    from sfumato.core.condition import part_of
    from sfumato.processes.dealing import images_of_all
    from sfumato.processes.ranks import Ranks
    from sfumato.progress import bar_of
    from sfumato.report.save import save
    from sfumato.report.sheet import choice, sheet
    from sfumato.sources import watched

    run, seeds, labels, ranks = drawn.run, drawn.seeds, part_of(drawn.told, "label"), ranks or Ranks()
    with bar_of(len(seeds), "img", "  sampling", leave=False, quiet=not ranks.first) as bar:
        maker, finished = watched(source, bar, ranks.world)
        made = images_of_all(ranks, maker, seeds, drawn.told, progress=finished)
    if not ranks.first:
        return target
    told = part_of(drawn.told, "image")
    title, words = run.title, drawn.caption
    if told is not None:
        words = f"{choice(seeds, False)} Each row of samples stands below what they were told. {words}"
        cells, columns, names = below_told(made, told)
        return save(sheet(cells, columns, row_labels=names, title=title, caption=words), target, command=typed())
    order, columns, names = _by_class(run, len(seeds), labels)
    picture = sheet(made[order], columns, row_labels=names, seeds=seeds, title=title, caption=words)
    return save(picture, target, command=typed())


def below_told(made: Tensor, told: Tensor) -> tuple[Tensor, int, list[str]]:
    """Return (images, columns, row labels) of a sheet in which each row of samples follows the images they were told.

    Arguments:
        made: uint8, shape (B, C, H, W).
        told: float in [-1, 1], shape (B, C', h, w); C' is C or 1.
    """
    import torch
    from torch.nn.functional import interpolate

    from sfumato.core.images import to_uint8

    columns = min(COLUMNS, len(made))
    low = to_uint8(interpolate(told.cpu().float(), size=made.shape[-2:], mode="nearest")).expand(made.shape)
    blank = made.new_full((-len(made) % columns, *made.shape[1:]), 255)  # at the end of the last row
    pairs = zip(torch.cat((low, blank)).split(columns), torch.cat((made, blank)).split(columns))
    return torch.cat([row for pair in pairs for row in pair]), columns, ["told", "sample"] * -(-len(made) // columns)


def _by_class(run: Run, count: int, labels: Tensor | None) -> tuple[Tensor, int, list[str]]:
    """Return (order of the images, columns, row labels) of a sheet whose rows hold one class each, if they can."""
    import torch

    from sfumato.sources import class_names

    if labels is None:
        return torch.arange(count), COLUMNS, []
    found, counts = labels.unique(return_counts=True)
    each = int(counts[0])
    columns = next(c for c in range(min(each, 2 * COLUMNS), 0, -1) if each % c == 0)
    if not bool((counts == each).all()) or columns < min(each, COLUMNS // 2):
        return torch.arange(count), COLUMNS, []
    names = [line for name in class_names(found, run.classes) for line in (name, *[""] * (each // columns - 1))]
    return labels.argsort(stable=True), columns, names


def draw_walk(drawn: Drawn, source: Diffusion, target: Path, *, strip: bool, gif: bool) -> list[Path]:
    """Draw how images emerge, as a strip, an animation or both, beside `target`; return their paths.

    Arguments:
        drawn: Which images, a row each.
        source: Makes them.
        target: Path of the sheet; "-strip" and ".gif" follow its stem.
        strip: Whether to draw the strip.
        gif: Whether to draw the animation.
    """
    from sfumato.core.condition import part_of
    from sfumato.report import strip as walks
    from sfumato.report.save import save
    from sfumato.sources import class_names

    run, seeds, labels, paths = drawn.run, drawn.seeds, drawn.told, []
    names, title, words = class_names(part_of(labels, "label"), run.classes), run.title, drawn.caption
    if strip:
        picture = walks.strip(source, seeds, labels, row_labels=names, title=title, caption=words)
        paths.append(save(picture, target.with_name(f"{target.stem}-strip.png"), command=typed()))
    if gif:
        paths.append(target.with_suffix(".gif"))
        walks.gif(source, seeds, labels, paths[-1], names=names, title=title, caption=words, command=typed())
    return paths


def _write_images(drawn: Drawn, source: Maker, folder: Path, device: str, ranks: Ranks) -> None:
    """Write one PNG a seed; those that are there already stay."""
    from sfumato.progress import bar_of
    from sfumato.report.seed_folder import fill
    from sfumato.report.signature import settings_of, told_settings
    from sfumato.sources import watched

    run, count = drawn.run, len(drawn.seeds)
    settings = settings_of(run, drawn.use, device) | told_settings(drawn.where, drawn.image, drawn.lender)
    with bar_of(count, "img", "  sampling", leave=False, quiet=not ranks.first) as bar:
        maker, finished = watched(source, bar, ranks.world)
        written = fill(folder, maker, drawn.seeds, drawn.told, settings, finished, ranks, drawn.caption)
    print(f"  {folder}: {written} images written, {count - written} were there.")
