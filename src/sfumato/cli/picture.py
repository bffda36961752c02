"""``sfumato picture``: one picture of a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, Overrides, again, device_named, settled
from sfumato.runs.drawn import PICTURES


def picture(
    kind: Annotated[Positional[str], arg(metavar="KIND")],
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Overrides = (),
    *,
    out: Folder = None,
    use: Name = None,
    device: Name = None,
    data_root: Folder = None,
) -> int:
    """Draw one picture of a run: a strip, an interpolation, nearest neighbours, ...

    `sfumato list pictures` shows the kinds and their options, which are given as name=value, as are fields of `sample`:
    sfumato picture interpolation RUN mask=left at=0.5 grid.steps=40

    Arguments:
        kind: Kind of picture.
        run: Directory of a run.
        overrides: Options of the picture, e.g. n=4, and fields of `sample`, e.g. guidance=2.
        out: Path of the .png (or .gif); RUN/pictures/KIND.png unless given, where the report finds it.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
    """
    command = again(picture, locals())
    print(f"sfumato picture {kind} {run}", flush=True)  # before torch is imported, which takes seconds

    from dataclasses import replace
    from inspect import signature

    from sfumato.cli._next import reporting, show_next
    from sfumato.core.find import assigned, check_options, find_named, options_of, parse
    from sfumato.report.save import place, save
    from sfumato.runs.run import Run

    entry = find_named("picture", kind)
    opened = Run.open(run)
    known = options_of(entry, fixed=("run", "device", "root"))
    mine = [text for text in overrides if re.split(r"[.=]", text)[0].replace("-", "_") in known]
    fields = [text for text in overrides if text not in mine]
    given = assigned(mine)
    hints = {name for name, p in known.items() if p.annotation == "str"}
    values = {name: text if name in hints else parse(text) for name, text in given.items()}
    singles = {name for name, p in known.items() if str(p.annotation).startswith("tuple")}
    values = {name: (v,) if name in singles and not isinstance(v, tuple) else v for name, v in values.items()}
    options = check_options(f"picture '{kind}'", entry, values, fixed=("run", "device", "root"))
    recipe = settled(opened, fields, ("sample", "evaluate"), use).recipe
    if use is not None:
        opened.network(use)  # refuses an average that was not kept
        recipe = replace(recipe, ema=replace(recipe.ema, use=use))
    place(out or opened.path / PICTURES / f"{kind.replace('_', '-')}.png", moving=None)
    taken = signature(entry).parameters
    bound = {"device": device_named(device), "root": data_root}
    drawn = entry(opened.with_recipe(recipe), **{k: v for k, v in bound.items() if k in taken}, **options)
    suffix = ".gif" if getattr(drawn, "format", None) == "GIF" else ".png"
    target = Path(out) if out else opened.path / PICTURES / f"{kind.replace('_', '-')}{suffix}"
    print(f"  {save(drawn, target, command=command)}")
    show_next(reporting(run))
    return 0
