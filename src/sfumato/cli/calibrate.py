"""``sfumato calibrate``: what real images score against real images, by their number."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, again

if TYPE_CHECKING:
    from sfumato.report.table import Row, Value


def calibrate(
    data: Annotated[Positional[str], arg(metavar="DATA")],
    *,
    n: Annotated[str, arg(metavar="N,N,...")] = "500,1000,2000,5000",
    extract: Name = None,
    weights: Folder = None,
    resize: Name = None,
    metrics: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("fd", "kid"),
    split: str = "train",
    repeats: int = 8,
    out: Folder = None,
    data_root: Folder = None,
    quiet: bool = False,
) -> int:
    """Score real images against real images at several sizes: the bias, the floor, and how many images one needs.

    Prints a table, and writes a picture of the plain distance against 1/n with its fitted line beside a .json file.

    Arguments:
        data: A dataset, or the path of a folder or .zip of images.
        n: Images in each of the two sets, separated by commas.
        extract: Feature extractor; that of the dataset's own name if there is one, else random.
        weights: Weights file of the extractor (inception, dinov2, resnet), or "download" for inception.
        resize: How inception resizes images: tf1, half_pixel or clean.
        metrics: Distances: fd, kid, prdc, 1nn.
        split: Part of the dataset to draw from.
        repeats: How often each size is drawn.
        out: Folder of the picture and the numbers; calibration/DATA unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
        quiet: No progress bar.
    """
    command = again(calibrate, locals())
    print(f"sfumato calibrate {data}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.cli.evaluate import words_of
    from sfumato.core.find import OptionError
    from sfumato.core.outside import allow_named
    from sfumato.data import load
    from sfumato.evaluation.calibrating import calibrate as calibrated
    from sfumato.metrics.features import available
    from sfumato.metrics.metric import expand, find_metric
    from sfumato.report.curves import against_size
    from sfumato.report.results import cell
    from sfumato.report.save import save
    from sfumato.report.table import text_table
    from sfumato.runs.checkpoint import replace_json

    if not all(word.isdecimal() and int(word) > 0 for word in words_of((n,))):
        raise OptionError(f"--n takes numbers of images separated by commas, such as 500,1000; got {n!r}.")
    if repeats < 2:
        raise OptionError(f"--repeats must be at least 2; got {repeats}.")
    sizes = sorted({int(word) for word in words_of((n,))})
    allow_named(extract or "", *words_of(metrics))
    names = expand(words_of(metrics))
    if alone := [name for name in names if not find_metric(name).against_reference or find_metric(name).own]:
        raise OptionError(f"{alone[0]} compares no two sets of images; calibrate distances, such as fd and kid.")
    pool = load(data, split=split, root=data_root)
    judge = extract or (pool.name if pool.name in available() else "random")
    options = {name: value for name, value in {"weights": weights, "resize": resize}.items() if value is not None}
    found = calibrated(pool, sizes, extract=judge, options=options, metrics=names, repeats=repeats, quiet=quiet)
    rows: list[Row] = []
    for i, size in enumerate(found.sizes):
        row: dict[str, Value] = {"n = m": size}
        for scores in found.scores.values():
            one = scores[i]
            row[one.name] = cell({"value": one.value, "interval": list(one.interval)})
            if one.plain != one.value:
                row[f"plain {one.name}"] = one.plain
        rows.append({**row, "expected plain": found.expected[i]})
    print(text_table(rows))
    folder = Path(out or f"calibration/{Path(data).stem}")
    tree = {
        "data": data,
        "split": pool.split,
        "extractor": judge,
        "sizes": list(found.sizes),
        "slope": found.slope,
        "limit": found.limit,
        "expected": list(found.expected),
        "command": command,
        "scores": {name: [s.to_json() for s in scores] for name, scores in found.scores.items()},
    }
    if found.slope is not None:
        from sfumato.report.plot import Series

        plain = found.scores["fd"]
        print(
            f"Plain {plain[0].name} of real images = {found.slope:.4g} (1/n + 1/m) {found.limit:+.2g}: smaller "
            "differences between plain values are bias."
        )
        reach = [(s.interval[1] - s.interval[0]) / 2 for s in plain]
        line = Series.of(
            found.sizes,
            [s.plain for s in plain],
            [s.plain - r for s, r in zip(plain, reach)],
            [s.plain + r for s, r in zip(plain, reach)],
        )
        figure = against_size(
            {"real against real, plain": line},
            score=plain[0].name,
            title=f"{pool.name} {pool.split}",
            caption=f"Two disjoint sets of n real images, mean of {repeats} draws, 95% intervals.",
        )
        print(f"Picture {save(figure, folder / 'against-size.png')}")
    folder.mkdir(parents=True, exist_ok=True)
    replace_json(folder / "calibration.json", tree)
    print(f"Written to {folder / 'calibration.json'}")
    return 0
