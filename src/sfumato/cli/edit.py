"""``sfumato edit``: change a picture with a model of such pictures."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import (
    Folder,
    Name,
    Overrides,
    again,
    allowed,
    check_first,
    device_named,
    refusal,
    refuse_idle,
    settled,
)
from sfumato.runs.drawn import EDITED

if TYPE_CHECKING:
    from torch import Tensor


def edit(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Annotated[Overrides, arg(metavar="PICTURE [FIELD=VALUE ...]", help_behavior_hint="")] = (),
    *,
    to: Name = None,
    strength: float = 0.6,
    mask: Folder = None,
    encode_as: Name = None,
    n: int = 4,
    first_seed: int = 0,
    fit: bool = False,
    use: Name = None,
    out: Folder = None,
    device: Name = None,
) -> int:
    """Change a picture: noise it part of the way and walk down, perhaps to another class (SDEdit).

        sfumato edit RUN coat.png --to bag --strength 0.6

    Strength 0 gives the picture back, strength 1 a new sample that knows nothing of it. With --encode-as CLASS the
    picture is instead encoded as noise under its own class and decoded under the other, without randomness.

    Arguments:
        run: Directory of a run.
        overrides: The picture, and fields of `sample`, e.g. guidance=2 or grid.steps=40.
        to: Class it becomes, a name or number; none unless given.
        strength: Share of the steps that are walked, in [0, 1].
        mask: A picture of the same size whose white pixels may change; all unless given.
        encode_as: Class of the picture: encode it and decode it under --to.
        n: How many edits are made, each of its own seed.
        first_seed: Seed of the first edit.
        fit: Convert and resize the picture and the mask to what the model takes.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        out: Path of the PNG; RUN/edited/PICTURE.png unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
    """
    command = again(edit, locals())
    if encode_as is not None:
        refuse_idle(edit, locals(), ("strength", "n", "first_seed"), "Encoding and decoding (--encode-as)")
    print(f"sfumato edit {run}", flush=True)  # before torch is imported, which takes seconds

    from dataclasses import replace

    import torch

    from sfumato.core.images import to_float, to_uint8
    from sfumato.editing import edit as noised
    from sfumato.editing import reencode, said, said_encoded, start_level
    from sfumato.interop.pictures import read_mask, read_picture
    from sfumato.report.save import place, save
    from sfumato.report.sheet import sheet
    from sfumato.runs.run import Run

    paths = [word for word in overrides if "=" not in word]
    if len(paths) != 1 or n < 1:
        raise refusal("Name one picture to edit, and n at least 1.")
    check_first(first_seed)
    allowed(n)
    opened = Run.open(run)
    fields = [word for word in overrides if "=" in word]
    opened = settled(opened, fields, ("sample",), use)
    source = opened.diffusion(use=use, device=device_named(device))
    start_level(source.grid, strength)  # refuses a strength out of range
    count = n if encode_as is None else 1
    target, own = (_repeated(name, opened.classes, count) for name in (to, encode_as))
    picture = read_picture(Path(paths[0]), [source.shape], fit)
    path = place(out or opened.path / EDITED / f"{Path(paths[0]).stem}.png")
    changes = None if mask is None else read_mask(Path(mask), *source.shape[1:], fit)
    images = to_float(picture).expand(count, -1, -1, -1)
    seeds = range(first_seed, first_seed + count)
    if encode_as is None:
        made = noised(source, images, strength, seeds=seeds, labels=target, mask=changes)
        words = said(source.grid, strength)
    else:
        made = reencode(source, images, own, target, mask=changes)
        words = said_encoded(encode_as)
    result = to_uint8(made.cpu())
    off = (result.double() - picture.double()).square().mean().sqrt()
    words += f"{'' if to is None else f' as {to}'}, {off:.1f} grey levels (RMSE) from the picture"
    print(f"  {words}")
    labels = ["picture", *(f"seed {seed}" for seed in seeds)] if encode_as is None else ["picture", "decoded"]
    drawn = sheet(
        torch.cat((picture[None], result)),
        count + 1,
        column_labels=labels,
        title=opened.title,
        caption=replace(opened.making(use), done=words).sentence,
    )
    print(f"  {save(drawn, path, command=command)}")
    return 0


def _repeated(name: str | None, classes: Sequence[str], count: int) -> Tensor | None:
    """Return a class as labels (count,), or None for none."""
    import torch

    from sfumato.sources import class_named

    label = None if name is None else class_named(name, classes)
    return None if label is None else torch.full((count,), label)
