"""``sfumato schedule``: levels computed for a run and a number of calls."""

from __future__ import annotations

from typing import Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Name, Overrides, device_named, resettle

WALK = 64  # calls of the walk that a grid is computed from
COMPARED = ("karras", "logsnr", "uniform", "trailing")


def schedule(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Overrides = (),
    *,
    calls: int = 6,
    seeds: int = 128,
    use: Name = None,
    device: Name = None,
) -> int:
    """Compute the levels at which few calls end nearest to the run's own walk of 64 calls.

    The grid is kept in RUN/grids, and the words that use it are printed. As many seeds again compare it with others.

    Arguments:
        run: Directory of a run.
        overrides: Fields of `sample` to set, e.g. guidance=1.5.
        calls: Calls of the network for an image, walked with ddim.
        seeds: Seeds to compute from, at least 16.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
    """
    print(f"sfumato schedule {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.core.find import OptionError
    from sfumato.evaluation.schedule import FEWEST, distances
    from sfumato.evaluation.schedule import schedule as computed
    from sfumato.report.table import Cell, text_table
    from sfumato.runs.checkpoint import replace_json
    from sfumato.runs.run import Run

    opened = Run.open(run)
    if not 1 <= calls <= WALK:
        raise OptionError(f"A grid is computed for 1 to {WALK} calls; got {calls}.")
    if seeds < FEWEST:
        raise OptionError(f"A grid is computed from at least {FEWEST} seeds; got {seeds}. Give more with --seeds.")

    def walked(*fields: str) -> Run:
        return opened.with_recipe(resettle(opened.recipe, [*overrides, "sampler=ddim", *fields], ("sample",)))

    source = walked(f"grid.steps={WALK}").diffusion(use=use, device=device_named(device))
    others = {}
    for name in COMPARED:
        try:
            others[name] = walked(f"grid={name}", f"grid.steps={calls}").diffusion(use=use).grid
        except ValueError as error:
            print(f"  {name} is left out: {error}")
    chosen = computed(source, calls, others, range(seeds))
    rows: list[dict[str, Any]] = []
    for name, grid in {"computed": chosen.grid, **others}.items():
        found = distances(source, grid, range(seeds, 2 * seeds))
        mean, half = float(found.mean()), 1.96 * float(found.std()) / seeds**0.5
        rows.append({"grid": name, "distance": {"value": mean, "interval": [mean - half, mean + half]}})
    print(
        text_table(
            [{**row, "distance": Cell(row["distance"]["value"], tuple(row["distance"]["interval"]))} for row in rows]
        )
    )
    if chosen.taken in others:
        print(f"  No computed grid wins: on the training seeds {chosen.taken} ends nearer, and is kept.")
    noisy = chosen.grid[:-1]
    words = [
        *(*overrides, "sampler=ddim", "grid=levels"),
        f"grid.alphas={','.join(map(repr, noisy.alpha.tolist()))}",
        f"grid.sigmas={','.join(map(repr, noisy.sigma.tolist()))}",
    ]
    path = opened.path / "grids" / f"calls-{calls}.json"
    path.parent.mkdir(exist_ok=True)
    replace_json(path, {"words": words, "training": chosen.errors, "held_out": rows})
    print(f"  {path}\n  sfumato sample {run} {' '.join(words)}")
    return 0
