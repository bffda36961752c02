"""``sfumato compress``: images into a small file that any prefix of decodes."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, Number, Text, again, device_named, refusal, refuse_idle
from sfumato.runs.drawn import SAMPLES

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.codelength.file import Coded, Model

SHOWN = 20  # rows of the table on a terminal


def compress(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    images: Annotated[Positional[tuple[str, ...]], arg(metavar="[IMAGE ...]", help_behavior_hint="")] = (),
    *,
    out: Folder = None,
    n: Count = None,
    split: str = "test",
    classes: Text = None,
    steps: int = 16,
    near: Number = None,
    lossless: bool = False,
    rule: str = "greedy",
    search: int = 16,
    section: int = 64,
    seed: int = 0,
    use: Name = None,
    device: Name = None,
    data_root: Folder = None,
) -> int:
    """Compress images with a run, progressively: any prefix of the file decodes to a coarser picture.

    The sender and the receiver walk from noise to the image; every step is sent by reverse channel coding in about as
    many bits as its KL (Algorithm 3 of DDPM). The table shows per step the bits that the theory predicts and those
    spent. `sfumato decompress` needs the same run. Needs the extra: pip install 'sfumato[coding]'.

    Arguments:
        run: Directory of a run.
        images: Image files of the run's size; with --n images of the run's data instead.
        out: The file to write, .sfm; beside the first image, or in RUN/samples, unless given (-o for short).
        n: Code this many images of a split, and keep the rates in RUN/results.
        split: Which split --n takes them from: test, val or train.
        classes: Class of the images, one for all or one each, e.g. bag or bag,coat; with --n their own, else none.
        steps: Steps of the walk. With few, the size is nearer to the bits of the theory; with many, the theory asks for
            fewer bits and the file can be cut at more places.
        near: Noise sigma/alpha where the walk ends; 0.01 unless given.
        lossless: Append the exact pixels.
        rule: greedy, or exact for samples of the true posterior.
        search: log2 of the number of candidates for a chunk, 4 to 24. More candidates cost time and save bits.
        section: Bytes between the points where the file may be cut.
        seed: Seed of the randomness that sender and receiver share.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
    """
    command = again(compress, locals())
    own = n is not None
    what = "Coding images of the run's data (--n)" if own else "Coding of image files"
    refuse_idle(compress, locals(), ("classes",) if own else ("split",), what)
    print(f"sfumato compress {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.codelength import file as codec
    from sfumato.core.writing import check_writable, write_whole
    from sfumato.progress import bar_of
    from sfumato.report.table import text_table
    from sfumato.runs.run import Run

    check_coder()
    where = device_named(device)
    model = codec.Model.of(Run.open(run), use, where)
    codes, labels, names = _images(model, images, n, split, classes, data_root)
    target = check_writable(Path(out) if out else _beside(model.run.path, images, n, split))
    if n is not None:
        model.run.place("results")
    with bar_of(None, "eval", "  levels", leave=False) as bar:
        grid = codec.grid_of(model, steps, near, data_root, bar.update)
    total = codec.walks(len(grid) - 2, lossless)
    with bar_of(total, "step", "  coding", leave=False) as bar:
        coded = codec.encode_images(
            model,
            codes,
            grid,
            labels=labels,
            seed=seed,
            lossless=lossless,
            rule=rule,
            search=search,
            section=section,
            progress=bar.update,
        )
    write_whole(target, coded.data)
    rows = coded.rows()
    every = -(-len(rows) // SHOWN)
    print(text_table([row for i, row in enumerate(rows) if (len(rows) - 1 - i) % every == 0]))
    print("\n" + "\n".join(summary(coded, len(codes))))
    if n is not None:
        print(f"Rates: {record(model, coded, names, command, use)}")
    print(f"Written: {target}. Decode it with: sfumato decompress {run} {target} -o image.png")
    return 0


def check_coder() -> None:
    """Raise `OptionError` if the entropy coder is not installed."""
    from sfumato.likelihood.codec.entropy import entropy_coder

    try:
        entropy_coder()
    except ImportError as error:
        raise refusal(str(error)) from None


def _images(
    model: Model, paths: tuple[str, ...], n: int | None, split: str, classes: str | None, root: str | None
) -> tuple[Tensor, Tensor | None, str]:
    """Return (uint8 images, labels, what they are)."""
    import torch

    from sfumato.codelength import file as codec
    from sfumato.runs.resolve import load_data
    from sfumato.sources import check_labels, classes_named

    known = len(model.run.classes)
    if bool(paths) == (n is not None):
        raise refusal("Name image files to code, or --n for images of the run's data; not both.")
    if n is not None:
        data = load_data(model.run.recipe, split, root)
        if not 1 <= n <= min(len(data), codec.MOST):
            raise refusal(f"--n lies in 1 .. {min(len(data), codec.MOST)} for split {split}; got {n}.")
        data = data.take(n, seed=0)
        return data.images, data.labels if known else None, f"{n} images of {data.name} {split}"
    codes = codec.read_images(paths, model.shape)
    picked = None if classes is None else classes_named(classes, model.run.classes)
    if picked is None:
        return codes, None, f"{len(codes)} files"
    if len(picked) not in (1, len(codes)):
        raise refusal(f"Give one class for all images or one each; got {len(picked)} for {len(codes)}.")
    labels = torch.tensor(picked * (len(codes) if len(picked) == 1 else 1))
    return codes, check_labels(labels, len(codes), known), f"{len(codes)} files"


def _beside(run: Path, images: tuple[str, ...], n: int | None, split: str) -> Path:
    return Path(images[0]).with_suffix(".sfm") if images else run / SAMPLES / f"coded-{split}-n{n}.sfm"


def summary(coded: Coded, count: int) -> list[str]:
    """Say what a file costs and what of it is overhead."""
    d, size = coded.dimensions, len(coded.data)
    spent = sum(float(c.bits.sum()) for c in coded.costs)
    lines = [
        f"{count} image{'s' * (count > 1)}, {size:,} bytes, {8 * size / d:.3f} bits/dim: symbols {spent / d:.3f}, "
        f"header {8 * coded.header / d:.3f} ({coded.header} bytes), frames of sections {8 * coded.frames / d:.3f}."
    ]
    return [*lines, *filter(None, [over_the_kl(coded)])]


def over_the_kl(coded: Coded) -> str:
    """Say what symbols cost over the KL along the walk; "" where too little is sent to tell."""
    over = coded.overhead()
    if over is None:
        return ""
    if over < 0:
        return (
            f"Above 0.1 bits/dim the symbols cost at least {-100 * over:.0f}% less than the KL along the walk: so few "
            "candidates cannot send it, and the images are worse for it. Give a higher --search."
        )
    return f"Above 0.1 bits/dim the symbols cost at most {100 * over:.0f}% more than the KL along the walk."


def record(model: Model, coded: Coded, what: str, command: str, use: str | None = None) -> Path:
    """Write the rates of a coded batch as a result of the run and return its path."""
    import hashlib

    from sfumato.core.writing import replace_json
    from sfumato.processes.machine import describe
    from sfumato.runs.identity import identity
    from sfumato.runs.identity import summary as identified

    rows = [row for row in coded.rows() if row["step"] != "pixels"]
    rmse = [row["RMSE"] for row in rows]
    series: dict[str, Any] = {
        name: {"x": [row[column] for row in rows], "y": rmse}
        for name, column in (
            ("formula (the bound)", "formula b/d"),
            ("KL along the walk", "predicted b/d"),
            ("spent on symbols", "spent b/d"),
        )
    }
    series["file"] = {"x": [8 * float(row["file bytes"] or 0) / coded.dimensions for row in rows], "y": rmse}
    tree = {
        "run": model.run.path.name,
        "recipe": model.run.recipe.name,
        "scores": [],
        "command": command,
        "provenance": {
            "checkpoint": model.run.checkpoint.path.name,
            "coded": what,
            "machine": describe(model.device),
            **identified(identity(model.run, use)),
        },
        "tables": {"coding": coded.rows()},
        "curves": {
            "coding": {
                "series": series,
                "caption": f"Progressive codec, {what} in one file: distortion of x0-hat at the rate of the formula, "
                f"predicted, spent, and of the whole file. {over_the_kl(coded)}".strip(),
            }
        },
    }
    key = hashlib.sha256(command.encode()).hexdigest()[:8]
    path = model.run.path / "results" / f"coding-{key}.json"
    replace_json(path, tree)
    return path
