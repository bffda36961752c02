"""``sfumato restore``: pictures that were damaged, and how sure a model is of what it fills in."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import (
    Count,
    Folder,
    Name,
    Overrides,
    Text,
    again,
    allowed,
    check_first,
    device_named,
    refusal,
    refuse_idle,
    settled,
)
from sfumato.cli._restoring import measure, parted, read
from sfumato.runs.drawn import RESTORED

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.core.task import Task
    from sfumato.data.dataset import Dataset
    from sfumato.evaluation.judge import Judge
    from sfumato.metrics.score import Score
    from sfumato.restoration import Restored
    from sfumato.runs.run import Run

ROWS = 8  # pictures on a sheet
OFTEN = 1000  # times that a step is walked again


def restore(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Annotated[
        Overrides, arg(metavar="[PICTURE ...] [task=NAME OPTION=VALUE ...]", help_behavior_hint="")
    ] = (),
    *,
    method: Name = None,
    samples: int = 4,
    score: Count = None,
    damaged: bool = False,
    fit: bool = False,
    classes: Text = None,
    first_seed: int = 0,
    resample: int = 1,
    use: Name = None,
    out: Folder = None,
    device: Name = None,
    data_root: Folder = None,
) -> int:
    """Restore pictures: fill in what is hidden, enlarge, colour, sharpen, denoise; several answers and their band.

        sfumato restore RUN photo.png task=inpaint mask=mask.png --samples 19
        sfumato restore RUN --score 200 task=inpaint mask=half

    A picture is taken as the original, is damaged as the task says and restored, so that it can be compared; with
    --damaged, or if it has the size of a measurement (a small one, a grey one), it is restored as it is. --score N
    restores N held-out images instead and prints PSNR, SSIM, and how often the band holds the truth.

    Words with "=" are the task and its options (`sfumato list tasks`), options of the method (`sfumato list methods`),
    e.g. iterations=5, or fields of `sample`, e.g. guidance=2 grid.steps=40. A mask is "half", "random 30%", a box
    top,left,height,width, or a picture whose white pixels are hidden.

    Arguments:
        run: Directory of a run.
        overrides: Pictures or folders of them, the task, and options.
        method: How a sample is held to what is known of the picture, see `sfumato list methods`; unless given moment,
            told for a model that is told the measurement, or dps for a task that is not linear.
        samples: Answers per picture; 19 or more make a band that holds the truth 90% of the time.
        score: Restore this many held-out images of the run's data and score them.
        damaged: Pictures are damaged already.
        fit: Convert and resize pictures and masks to what the model takes.
        classes: Class of every picture, names or numbers taken in turn; none unless given; "own" for held-out images'.
        first_seed: Seed of the first picture.
        resample: Walk every step this many times, going back up in between (RePaint).
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        out: Folder of the sheet, the pictures and restored.json; RUN/restored/TASK-METHOD unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
    """
    command = again(restore, locals())
    if score is not None:
        refuse_idle(restore, locals(), ("damaged",), "Restoring held-out images (--score)")
    print(f"sfumato restore {run}", flush=True)  # before torch is imported, which takes seconds

    import time
    from dataclasses import replace

    from sfumato.cli._next import show_next
    from sfumato.core.images import to_uint8
    from sfumato.core.writing import check_writable, replace_json
    from sfumato.evaluation import restored as judged
    from sfumato.progress import bar_of
    from sfumato.restoration import method_of, resampled, said
    from sfumato.restoration import restore as draw
    from sfumato.runs.conditions import measured_label, usual_method
    from sfumato.runs.identity import identity, summary
    from sfumato.runs.resolve import load_data
    from sfumato.runs.run import Run
    from sfumato.sources import watched

    paths = [word for word in overrides if "=" not in word]
    if bool(paths) == (score is not None):
        raise refusal("Name pictures to restore, or --score N for held-out images of the run's data: one of them.")
    if samples < 1 or not 1 <= resample <= OFTEN or (score is not None and score < 1):
        raise refusal(f"--samples, --resample and --score are at least 1, and --resample at most {OFTEN:,}.")
    check_first(first_seed)
    allowed(samples)
    opened = Run.open(run)
    words, usual = [word for word in overrides if "=" in word], usual_method(opened.plan)
    method = method or usual_method(opened.plan, parted(words, usual).unmasked(opened.plan.image))
    asked = parted(words, method)
    opened = settled(opened, asked.fields, ("sample",), use)
    source, networks = opened.counted_walk(use, device_named(device))
    task = asked.task(source.shape, fit)
    folder = check_writable(Path(out) if out else opened.path / RESTORED / f"{task.name}-{method}", folder=True)
    bound = method_of(method, **asked.method)
    if resample > 1:
        source = source.having(sampler=resampled(source.sampler, resample))
    judge = None
    if score is None:
        names, truth, y = read(task, paths, damaged, fit, first_seed)
        labels = None
    else:
        data = load_data(opened.recipe, "test", data_root)
        if score > len(data):
            raise refusal(f"{data.name} test has {len(data)} images; got --score {score}.")
        held = data.take(score, seed=0)
        names, truth, labels = [f"{i:05d}" for i in range(score)], held.images, held.labels
        y = measure(task, truth, first_seed)
        judge = _judge(opened, data, held)
    seeds = range(first_seed, first_seed + len(y))
    wanted = measured_label(opened.recipe, task, y, _labels(opened, classes, labels, len(y)))
    each = "one sample" if samples == 1 else f"{samples} samples"
    print(f"  {len(y)} picture{'s' * (len(y) > 1)}, {task.words}, method {method}, {each} each")
    if task.blind or not bool(task.open().any()):
        print("  Nothing is hidden: the picture comes back." if not task.blind else "  All is hidden: plain sampling.")
    began = time.monotonic()
    with bar_of(len(y) * samples, "img", "  restoring", leave=False) as bar:
        maker, finished = watched(source, bar)
        found = draw(
            maker,
            task,
            y,
            bound,
            samples=samples,
            seeds=seeds,
            labels=wanted,
            sigma_data=opened.plan.sigma_data,
            progress=finished,
            asked=networks,
        )
    seconds = time.monotonic() - began
    print(
        f"  {found.nfe:g} network calls and {found.vjps} gradients (vector-Jacobian products) an image; {seconds:.1f} s"
    )
    report: dict[str, Any] = {
        "command": command,
        "task": task.words,
        "noise": task.noise,
        "method": method,
        "options": asked.method,
        "samples": samples,
        "pictures": len(y),
        "seeds": [seeds[0], seeds[-1] + 1],
        "calls": found.nfe,
        "vector-Jacobian products": found.vjps,
        "seconds": round(seconds, 2),
        **summary(identity(opened, use)),
    }
    if truth is not None:
        figures = judged.figures(truth, found, task)
        report["scores"] = judged.as_json(figures)
        report["coverage expected"] = judged.expected_coverage(found)
        for name, figure in figures.items():
            beside = f", {report['coverage expected']:.2f} is right" if name == "coverage" else ""
            unit = judged.UNITS.get(name.partition(",")[0], "")
            print(f"  {name:<16} {figure}{unit}{beside}")
    if judge is not None:
        distance = judged.distance(judge, found)
        report["distance"] = distance.to_json()
        print(f"  {in_words(distance)}")
    shown = to_uint8(task.picture(y))
    _draw(
        opened,
        task,
        folder,
        found,
        shown,
        truth,
        names,
        command,
        replace(opened.making(use), nfe=found.nfe, done=said(task, method)).sentence,
    )
    if score is None:
        _write(folder, names, found)
    replace_json(folder / "restored.json", report)
    print(f"  {folder / 'sheet.png'}\n  {folder / 'restored.json'}")
    if score is None:
        words = [
            "edit",
            run,
            str(folder / f"{names[0]}-sample-1.png"),
            *(["--to", opened.classes[-1]] if opened.classes else []),
        ]
        show_next((words, "change a picture"))
    return 0


def _judge(run: Run, data: Dataset, held: Dataset) -> Judge | None:
    """Return what scores the restored set as a whole, or None, said, where that cannot be."""
    from sfumato.evaluation.restored import judge_of

    try:
        return judge_of(run.recipe, data, held)
    except ValueError as error:
        print(f"  No distance of the whole set: {str(error).partition('.')[0]}.")
        return None


def in_words(score: Score) -> str:
    """Say a score with its interval, and that of the originals beside it."""
    floor = score.floor
    beside = (
        "" if floor is None else f", originals {floor.value:.3g} [{floor.interval[0]:.3g}, {floor.interval[1]:.3g}]"
    )
    return f"{score.name:<16} {score.value:.3g} [{score.interval[0]:.3g}, {score.interval[1]:.3g}]{beside}"


def _labels(run: Run, classes: str | None, own: Tensor | None, count: int) -> Tensor | None:
    from sfumato.sources import classes_named, in_turn

    if classes == "own" and own is not None and run.classes:
        return own
    return None if classes is None else in_turn(range(count), classes_named(classes, run.classes))


def _draw(
    run: Run,
    task: Task,
    folder: Path,
    found: Restored,
    shown: Tensor,
    truth: Tensor | None,
    names: Sequence[str],
    command: str,
    words: str,
) -> None:
    from sfumato.evaluation.restored import columns
    from sfumato.report.save import save
    from sfumato.report.sheet import sheet
    from sfumato.restoration import Restored

    some = Restored(found.samples[:ROWS], found.nfe, found.vjps)
    labels, images = columns(some, shown[:ROWS], None if truth is None else truth[:ROWS])
    picture = sheet(
        images,
        len(labels),
        row_labels=list(names[:ROWS]),
        column_labels=labels,
        title=f"{run.title}: {task.words}",
        caption=words + " The band is white where the samples span all grey levels." * (found.samples.shape[1] > 1),
    )
    save(picture, folder / "sheet.png", command=command)


def _write(folder: Path, names: Sequence[str], found: Restored) -> None:
    """Write every sample, the mean and the ends of the band of each picture as PNG."""
    from sfumato.core.images import to_uint8
    from sfumato.report.signature import picture_of

    low, high = found.band()
    for i, name in enumerate(names):
        rows = {f"sample-{k + 1}": found.samples[i, k] for k in range(found.samples.shape[1])}
        rows |= {"mean": found.mean[i], "low": low[i], "high": high[i]}
        for what, image in rows.items():
            picture_of(to_uint8(image)).save(folder / f"{name}-{what}.png")
