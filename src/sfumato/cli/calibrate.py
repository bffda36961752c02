"""``sfumato calibrate``: what real images score by their number, and how a score moves with what should not matter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, Text, again, allowed, refusal

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.report.table import Row, Value

SIZES = "500,1000,2000,5000"
ALONE = 2000  # images of each side of --sensitivity
SPLIT, REPEATS = "train", 8
OFTEN = 10_000  # draws of each size


def calibrate(
    data: Annotated[Positional[str], arg(metavar="DATA")],
    *,
    n: Annotated[str, arg(metavar="N,N,...")] = SIZES,
    extract: Name = None,
    weights: Folder = None,
    resize: Name = None,
    metrics: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("fd", "kid"),
    split: str = SPLIT,
    repeats: int = REPEATS,
    sensitivity: bool = False,
    against: Text = None,
    out: Folder = None,
    data_root: Folder = None,
    quiet: bool = False,
) -> int:
    """Score real images against real images at several sizes: the bias, the floor, and how many images one needs.

    Prints a table, and writes a picture of the plain distance against 1/n with its fitted line beside a .json file.

    With --sensitivity it scores one set of images as always, and again with one thing changed at a time: dtype, resize,
    threads, batch, device and file codec. The table has the change beside the score's own interval:

        sfumato calibrate RUN --sensitivity --n 2000
        sfumato calibrate my-images --sensitivity --against cifar10@test

    Arguments:
        data: A dataset, or the path of a folder or .zip of images; with --sensitivity also a run.
        n: Images in each of the two sets, separated by commas; one number with --sensitivity, 2,000 unless given.
        extract: Feature extractor; that of the dataset's own name if there is one, else random.
        weights: Weights file of the extractor (inception, dinov2, resnet), or "download" for inception; that of its
            usual name in the data root unless given.
        resize: How inception resizes images: tf1, half_pixel or clean.
        metrics: Distances: fd, kid, prdc, 1nn.
        split: Part of the dataset to draw from.
        repeats: How often each size is drawn.
        sensitivity: Score one set of images with one thing changed at a time.
        against: The reference of --sensitivity: a folder, .zip or DATASET@SPLIT. Of a run its test images, and of other
            images as many others of them, unless given.
        out: Folder of the picture and the numbers; calibration/DATA unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
        quiet: No progress bar.
    """
    command = again(calibrate, locals())
    print(f"sfumato calibrate {data}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.cli.evaluate import words_of
    from sfumato.core.outside import allow_named
    from sfumato.core.writing import check_writable, replace_json
    from sfumato.data import load
    from sfumato.evaluation.calibrating import calibrate as calibrated
    from sfumato.metrics.features import available
    from sfumato.metrics.metric import expand, find_metric
    from sfumato.report.curves import against_size
    from sfumato.report.save import save
    from sfumato.report.table import Cell, text_table

    if sensitivity and repeats != REPEATS:
        raise refusal("--repeats says how often each size is drawn; --sensitivity draws once. Leave one of them out.")
    if sensitivity:
        return _sensitivity(command, data, n, extract, weights, resize, metrics, split, against, out, data_root, quiet)
    if against is not None:
        raise refusal("--against is the reference of --sensitivity. Add --sensitivity, or leave it out.")
    if not all(word.isdecimal() and int(word) > 0 for word in words_of((n,))):
        raise refusal(f"--n takes numbers of images separated by commas, such as 500,1000; got {n!r}.")
    if not 2 <= repeats <= OFTEN:
        raise refusal(f"--repeats must be at least 2 and at most {OFTEN:,}; got {repeats}.")
    sizes = sorted({int(word) for word in words_of((n,))})
    allow_named(extract or "", *words_of(metrics))
    names = expand(words_of(metrics))
    if alone := [name for name in names if not find_metric(name).against_reference or find_metric(name).own]:
        raise refusal(f"{alone[0]} compares no two sets of images; calibrate distances, such as fd and kid.")
    pool = load(data, split=split, root=data_root)
    judge = extract or (pool.name if pool.name in available() else "random")
    options = {name: value for name, value in {"weights": weights, "resize": resize}.items() if value is not None}
    folder = check_writable(Path(out or f"calibration/{Path(data).stem}"), folder=True)
    found = calibrated(pool, sizes, extract=judge, options=options, metrics=names, repeats=repeats, quiet=quiet)
    rows: list[Row] = []
    for i, size in enumerate(found.sizes):
        row: dict[str, Value] = {"n = m": size}
        for scores in found.scores.values():
            one = scores[i]
            row[one.name] = Cell(one.value, one.interval)
            if one.plain != one.value:
                row[f"plain {one.name}"] = one.plain
        rows.append({**row, "expected plain": found.expected[i]})
    print(text_table(rows))
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
    replace_json(folder / "calibration.json", tree)
    print(f"Written to {folder / 'calibration.json'}")
    return 0


def _sensitivity(
    command: str,
    data: str,
    n: str,
    extract: str | None,
    weights: str | None,
    resize: str | None,
    metrics: tuple[str, ...],
    split: str,
    against: str | None,
    out: str | None,
    data_root: str | None,
    quiet: bool,
) -> int:
    """Print, write and keep how a score moves; arguments as for `calibrate`."""
    import torch

    from sfumato.cli.evaluate import words_of
    from sfumato.core.outside import allow_named
    from sfumato.core.writing import check_writable, replace_json, replace_text
    from sfumato.evaluation.sensitivity import sensitivity
    from sfumato.metrics.metric import expand, find_metric
    from sfumato.processes.machine import describe
    from sfumato.report.results import cell
    from sfumato.report.table import Cell, markdown_table, text_table

    count = str(ALONE) if n == SIZES else n
    if not (count.isdecimal() and int(count) > 0):
        raise refusal(f"--sensitivity takes one number of images, --n 2000 for example; got --n {n}.")
    allowed(int(count))
    if split != SPLIT and (against is not None or (Path(data) / "recipe.json").is_file()):
        raise refusal(
            "--split names the part that both sets are drawn from; a run and --against have sets of their own."
        )
    allow_named(extract or "", *words_of(metrics))
    names = expand(words_of(metrics))
    if other := [name for name in names if find_metric(name).view != "features" or find_metric(name).own]:
        raise refusal(f"{other[0]} is not of features that a change could move; ask for fd, kid or prdc.")
    folder = check_writable(Path(out or f"calibration/{Path(data).stem}"), folder=True)
    made, real, judge = _two_sides(data, int(count), split, against, extract, data_root, quiet)
    options = {name: value for name, value in {"weights": weights, "resize": resize}.items() if value is not None}
    found = sensitivity(made, real, judge, options=options, metrics=names, quiet=quiet)
    usual = {name: {"value": e.value, "interval": list(e.interval)} for name, e in found.base.items()}
    rows: list[Row] = []
    for i in range(0, len(found.moved), len(usual)):
        change = found.moved[i].change
        row: dict[str, Value] = {
            "changed": change.what,
            "to": change.name,
            "on": "both sides" if change.both else "the generated",
        }
        for one in found.moved[i : i + len(usual)]:
            row[f"{one.metric} moves by"] = Cell(one.by.value, one.by.interval)
            row[f"of its {one.metric.partition('[')[0]} interval"] = f"{one.share:.1%}"
        rows.append(row)
    scores = ", ".join(f"{name} {cell(one)}" for name, one in usual.items())
    said = f"{scores}; n = {found.n:,} against m = {found.m:,} images. One thing changed at a time:"
    print(said)
    print(text_table(rows))
    tree = {
        "data": data,
        "against": against,
        "n": found.n,
        "m": found.m,
        "extractor": judge,
        "machine": describe(torch.device("cpu")),
        "command": command,
        "scores": usual,
        "moved": [
            {
                "changed": one.change.what,
                "to": one.change.name,
                "both": one.change.both,
                "score": one.metric,
                "value": one.value,
                "by": one.by.value,
                "interval": list(one.by.interval),
                "share": one.share,
            }
            for one in found.moved
        ],
    }
    replace_json(folder / "sensitivity.json", tree)
    replace_text(folder / "sensitivity.md", f"{said}\n\n{markdown_table(rows)}\n")
    print(f"Written to {folder / 'sensitivity.json'} and {folder / 'sensitivity.md'}")
    return 0


def _two_sides(
    data: str, n: int, split: str, against: str | None, extract: str | None, root: str | None, quiet: bool
) -> tuple[Tensor, Tensor, str]:
    """Return generated images, the reference, both uint8, and the name of an extractor."""
    import torch

    from sfumato.data import load
    from sfumato.evaluation.generated import generate, pixels_of
    from sfumato.evaluation.two_sets import Images, open_set
    from sfumato.metrics.features import available
    from sfumato.processes.machine import default_device
    from sfumato.runs.resolve import load_data
    from sfumato.runs.run import Run

    def opened(text: str) -> Tensor:
        found = open_set(text, root)
        if not isinstance(found, Images):
            raise ValueError(f"The file codec and the arithmetic change images, and {text} holds none. Give images.")
        return torch.cat(list(found.chunks()))

    if (Path(data) / "recipe.json").is_file():
        run = Run.open(data)
        test = load_data(run.recipe, "test", root)
        labels, _ = run.labels(n, test)
        rows, _ = generate(
            run, n, {"pixels": pixels_of(test.shape)}, device=default_device(), quiet=quiet, labels=labels
        )
        made = torch.from_numpy(rows["pixels"].reshape(n, *test.shape).copy())
        return made, test.images[:] if against is None else opened(against), extract or run.recipe.evaluate.extractor
    if against is not None:
        made = opened(data)
        return made[:n], opened(against), extract or "random"
    pool = load(data, split=split, root=root)
    if 2 * n > len(pool):
        raise ValueError(
            f"Two disjoint sets of {n:,} need {2 * n:,} images; {pool.name} {pool.split} has {len(pool):,}. Use "
            f"--n {len(pool) // 2}, or name a reference by --against."
        )
    drawn = pool.take(2 * n, seed=0).images
    return drawn[:n], drawn[n:], extract or (pool.name if pool.name in available() else "random")
