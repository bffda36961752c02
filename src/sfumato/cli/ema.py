"""``sfumato ema``: averages of a run's weights, of any width, made after training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, Overrides, allowed, device_named, refuse_idle, settled

if TYPE_CHECKING:
    from sfumato.report.table import Row
    from sfumato.runs.run import Run


def ema(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Overrides = (),
    *,
    width: Annotated[tuple[float, ...], arg(metavar="W ...", help_behavior_hint="")] = (),
    choose: bool = False,
    metric: str = "fd",
    n: Count = None,
    split: str = "test",
    device: Name = None,
    data_root: Folder = None,
) -> int:
    """Make averages of a run's weights of any width after training, or choose the width by a score.

    A run trained with ema.snapshots=16, for example, keeps what is needed. Without options it lists the averages:

        sfumato ema RUN --width 0.08            makes one; then: sfumato sample RUN --use post-0.080
        sfumato ema RUN --choose --n 2000       compares widths on the same seeds and keeps the best, marked as chosen

    Arguments:
        run: Directory of a run.
        overrides: Fields of `sample` to set for the comparison, e.g. guidance=1.5.
        width: Widths relative to the length of training (sigma_rel), in (0, 0.28).
        choose: Score the widths (or a ladder of them) and keep the best.
        metric: Distance that judges the widths: fd, kid, ...
        n: Images of each width; the recipe's evaluate.quick unless given.
        split: Real images that judge: test, val or train.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
    """
    if not choose:
        refuse_idle(ema, locals(), ("overrides", "metric", "n", "split"), "An average that is not chosen by a score")
    print(f"sfumato ema {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.cli._next import sampling, scoring, show_next
    from sfumato.report.table import text_table
    from sfumato.runs import averages
    from sfumato.runs.run import Run

    if n is not None:
        allowed(n)
    opened = Run.open(run)
    opened = settled(opened, overrides, ("sample", "evaluate"))
    if choose or width:
        opened.place("averages")
    if choose:
        name = _choose(opened, width, metric, n, split, data_root, device)
    elif width:
        for one in width:
            made = averages.reconstruct(opened.path, one, opened.mark)
            name = averages.store(opened.path, one, made)
            print(f"  {name}: profile off by {100 * made.error:.1f}%, of {made.snapshots} snapshots")
    else:
        print(text_table(kept(opened)))
        return 0
    show_next(*sampling(opened, "--use", name), scoring(opened, data_root, "--use", name))
    return 0


def _choose(
    run: Run, widths: tuple[float, ...], metric: str, n: int | None, split: str, root: str | None, device: str | None
) -> str:
    from sfumato.evaluation.choose_average import choose
    from sfumato.progress import bar_of
    from sfumato.report.table import Cell, text_table

    with bar_of(None, "img", "  sampling", leave=False) as bar:
        name, judged = choose(
            run, widths, metric=metric, n=n, split=split, root=root, device=device_named(device), progress=bar.update
        )
    rows: list[Row] = [
        {
            "width": c.width,
            c.score.name: Cell(c.score.value, c.score.interval),
            "n": c.score.n,
            "profile off by": f"{100 * c.error:.1f}%",
        }
        for c in judged
    ]
    print(text_table(rows))
    print(f"Kept {name}, selected on {split}: its score against these images is marked so.")
    return name


def kept(run: Run) -> list[Row]:
    """Return a row per average that can be used.

    Arguments:
        run: The run.
    """
    from sfumato.runs import averages, checkpoint
    from sfumato.runs.run import is_choice

    rows: list[Row] = []
    for name in run.tracked:
        note = "the recipe's choice" if name == run.recipe.ema.use else ""
        rows.append({"use": name, "from": run.checkpoint.path.name, "note": note})
    for name in averages.stored(run.path):
        state = averages.load(run.path, name).state
        chosen = state.get("selected")
        note = f"best of {chosen['candidates']} by {chosen['by']}, n = {chosen['n']}" if is_choice(chosen) else ""
        rows.append({"use": name, "from": f"step-{state['step']}", "note": note})
    moments = len(checkpoint.steps(run.path / "snapshots"))
    if moments:
        rows.append({"use": "(any width)", "from": f"{moments} snapshots", "note": f"sfumato ema {run.path} --width W"})
    return rows
