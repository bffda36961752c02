"""``sfumato schedule``: levels computed for a run and a number of calls."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Name, Overrides, allowed, device_named, refusal, resettle, typed

if TYPE_CHECKING:
    from torch import Tensor

    from sfumato.core.condition import Label
    from sfumato.core.denoiser import Prediction
    from sfumato.core.level import Level
    from sfumato.runs.run import Run

WALK = 64  # calls of the walk that a grid is computed from
FINE = 512  # levels to choose from, where the run has no table of them
COMPARED = ("karras", "logsnr", "uniform", "trailing")


def schedule(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Overrides = (),
    *,
    calls: int = 6,
    seeds: int = 128,
    name: Name = None,
    use: Name = None,
    device: Name = None,
) -> int:
    """Compute the levels at which few calls end nearest to the run's own walk of 64 calls.

    The grid is kept in RUN/grids and taken by its name: sfumato sample RUN --grid computed-6. It is computed for the
    run's own sampler, or the one that is named (sampler=ddim). As many seeds again compare it with other grids of as
    many steps; the distance of each is printed with its 95% interval, and how much farther than the computed grid it
    ends, in pairs of the same seed.

    Arguments:
        run: Directory of a run.
        overrides: Fields of `sample` to set, e.g. sampler=dpmpp guidance=1.5.
        calls: Calls of the network for an image, 2 to 64.
        seeds: Seeds to compute from, at least 16.
        name: Name of the grid; computed-CALLS unless given.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
    """
    print(f"sfumato schedule {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.cli._next import show_next
    from sfumato.cli.evaluate import row_table
    from sfumato.evaluation.schedule import FEWEST, TRIES, Walk, evenly, steps_within
    from sfumato.evaluation.schedule import schedule as computed
    from sfumato.progress import bar_of
    from sfumato.runs.computed import FOLDER, check_name, store
    from sfumato.runs.run import Run

    opened, named = Run.open(run), name or f"computed-{calls}"
    opened.require_walk()
    if not 2 <= calls <= WALK:
        raise refusal(f"A grid is computed for 2 to {WALK} calls; got {calls}.")
    if seeds < FEWEST:
        raise refusal(f"A grid is computed from at least {FEWEST} seeds; got {seeds}. Give more with --seeds.")
    allowed(2 * seeds)
    check_name(named)
    opened.place(FOLDER)
    opened = opened.with_recipe(resettle(opened.recipe, overrides, ("sample",)))
    candidates, source = _candidates(opened), opened.diffusion(use=use, device=device_named(device))
    if opened.plan.known is not None and calls > len(candidates) - 1:
        raise refusal(f"This run's table has {len(candidates) - 1} levels; got --calls {calls}. Ask for fewer.")
    steps, whole = (steps_within(source.sampler, candidates, most) for most in (calls, WALK))
    if not steps:
        raise refusal(f"{opened.making(use).sampler} takes no step in {calls} calls; give more --calls.")
    others, left_out = _others(opened, steps)
    for line in left_out:
        print(f"  {line}")
    work = seeds * (4 * whole + (TRIES + 2) * steps * calls)  # at most; a guided call counts once
    with bar_of(work, "call", "  computing", leave=False) as bar:

        def told(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
            bar.update(len(x))
            return source.denoiser(x, level, label)

        fine = source.having(denoiser=told, grid=evenly(candidates, whole))
        chosen = computed(Walk(fine, range(seeds)), steps, others, candidates)
        judge = Walk(fine, range(seeds, 2 * seeds))
        ends = {key: judge.distances(grid) for key, grid in {"computed": chosen.grid, **others}.items()}
    rows: list[dict[str, Any]] = []
    for key, far in ends.items():
        farther = None if key == "computed" else _interval(far - ends["computed"])
        rows.append({"grid": key, "distance": _interval(far), "farther": farther})
    shown = {"grid": "grid", "distance": "distance to the walk", "farther": "farther than computed"}
    print(row_table([{words: row[key] for key, words in shown.items()} for row in rows]))
    if chosen.taken in others:
        print(f"  No computed grid wins: on the training seeds {chosen.taken} ends nearer, and is kept.")
    facts = {
        "calls": calls,
        "overrides": list(overrides),
        "seeds": {"computed": [0, seeds], "compared": [seeds, 2 * seeds]},
        "training": chosen.errors,
        "compared": rows,
        "command": typed(),
    }
    print(f"  {store(opened, named, chosen.grid, facts, use)}")
    fields = [text for text in overrides if not text.removeprefix("sample.").startswith("grid")]
    more = [*fields, *(["--use", use] if use else [])]
    show_next((["sample", run, "--grid", named, *more], f"walk it: {steps} steps, {calls} calls at most"))
    return 0


def _candidates(run: Run) -> Level:
    """Return the levels to choose from: the run's table, or many of its own grid."""
    from sfumato import grids
    from sfumato.runs.part import asks

    table = run.plan.table
    if table is not None and (run.plan.known is not None or asks(run.recipe.sample.grid, "table")):
        return grids.full(table)
    return run.with_recipe(resettle(run.recipe, [f"grid.steps={FINE}"], ("sample",))).plan.grid


def _others(run: Run, steps: int) -> tuple[dict[str, Level], list[str]]:
    """Return the compared grids of so many steps, by name, and why others are left out."""
    from sfumato.runs.check import check_sampling

    found, left_out = {}, []
    for name in COMPARED:
        own = name == run.recipe.sample.grid.name  # with its options
        try:
            fields = [*([] if own else [f"grid={name}"]), f"grid.steps={steps}"]
            other = run.with_recipe(resettle(run.recipe, fields, ("sample",)))
            check_sampling(other.plan)
            found[name] = other.plan.grid
        except ValueError as error:
            why = str(error).split(". ")[0].rstrip(".")  # the remedy is for who chooses a grid
            left_out.append(f"The grid {name} is not compared: {why}.")
    return found, left_out


def _interval(values: Tensor) -> dict[str, Any]:
    """Return the mean of values, one per seed, with its 95% interval."""
    from sfumato.metrics.fidelity import with_interval

    mean, *interval = with_interval(values.numpy())
    return {"value": mean, "interval": interval}
