"""``sfumato sweep``: the same seeds under one setting that varies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, Overrides, Text, class_list, device_named, labels_of, resettle
from sfumato.cli.sample import caption

CLASSES, PER_CLASS = 10, 2  # rows of a sheet and images of a class in a block unless told otherwise


def sweep(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    field: Annotated[Positional[str], arg(metavar="FIELD=V1,V2,...")],
    overrides: Overrides = (),
    *,
    n: Count = None,
    classes: Text = None,
    use: Name = None,
    out: Folder = None,
    device: Name = None,
) -> int:
    """Draw the same seeds under several values of one sampling field, a block of columns per value.

    What differs between blocks is the field alone: sfumato sweep RUN guidance=1,1.5,2.5,5
    or sampler=heun,ddim,dpmpp, or grid.steps=4,8,16,32.

    Arguments:
        run: Directory of a run.
        field: The field of `sample` that varies, and its values.
        overrides: Fields of `sample` that all blocks share, e.g. grid.steps=12.
        n: Images of a class in each block; 2 unless given.
        classes: Class names or numbers, a row each; the first ten unless given.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        out: Path of the PNG; RUN/samples/sweep-FIELD.png unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
    """
    print(f"sfumato sweep {run} {field}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.core.find import OptionError
    from sfumato.report import sweep as pictures
    from sfumato.report.save import save
    from sfumato.sources import check_labels
    from sfumato.training.run import Run

    opened = Run.open(run)
    path, _, text = field.partition("=")
    values = [value.strip() for value in text.split(",") if value.strip()]
    if len(values) < 2:
        raise OptionError(f"A sweep needs one field with at least two values, e.g. guidance=1,2.5,5; got {field!r}.")
    where = device_named(device)
    sources = {}
    for value in values:
        recipe = resettle(opened.recipe, [*overrides, f"{path}={value}"], ("sample",))
        sources[f"{path.split('.')[-1]} {value}"] = opened.with_recipe(recipe).source(use=use, device=where)
    across = PER_CLASS if n is None else n
    if across < 1:
        raise OptionError(f"--n is at least 1 image of a class in each block; got {across}.")
    picked = class_list(classes, opened.classes)
    picked = picked if classes or picked is None else picked[:CLASSES]
    rows = len(picked) if picked else 8
    seeds = list(range(rows * across))
    labels = None if picked is None else labels_of(seeds, [label for label in picked for _ in range(across)])
    labels = check_labels(labels, len(seeds), len(opened.classes))
    names = [opened.classes[label] if label >= 0 else "no class" for label in picked or []]
    shared = opened.with_recipe(resettle(opened.recipe, overrides, ("sample",)))
    picture = pictures.sweep(
        sources, seeds, labels, across=across, row_labels=names, title=f"{opened.recipe.name}: {path}",
        caption=f"Otherwise {caption(shared)}",
    )  # fmt: skip
    target = Path(out) if out else opened.path / "samples" / f"sweep-{path.replace('.', '-')}.png"
    print(f"  {save(picture, target)}")
    return 0
