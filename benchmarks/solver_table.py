"""Error against NFE of every ODE sampler on an exact Gaussian mixture.

With the exact denoiser of a mixture the only error is the solver's. Start from x = sigma n at the grid's noisiest
level, follow the probability-flow ODE to the clean level with a sampler that may call the denoiser nfe times, and
compare with the exact end of the same trajectory:

    error = sqrt(mean over images and coordinates of (x - x*)^2)          in units of the image range [-1, 1]

One step of an 8-bit image is 2 / 255 = 0.0078, its rounding error 0.0023 RMS. The end x* comes from an adaptive solver
of order 8 at tolerance 1e-11. It belongs to a start, so errors compare samplers within one grid; across grids they
compare the discretisations, each from its own start. Data: two isotropic blobs of standard deviation 0.2 and 0.3 in the
plane, 0.35 and 0.65 of the mass, at (-0.6, 0.2) and (0.5, -0.3).

Every row is a sampler with its options, every column a budget of calls; the number of grid steps is the largest that
keeps within the budget, so methods that call twice a step take half the steps. A summary gives each row's error over
the best row's at equal budget and grid, as a geometric mean over budgets: 1 is a sampler that always wins. From it the
defaults of the samplers are chosen.

Run it with ``python benchmarks/solver_table.py`` (it needs the extra 'ode'): it writes solvers.json, and from that
solvers.md and solvers.png.
"""

from __future__ import annotations

import argparse
import inspect
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from sfumato import grids, schedules
from sfumato.core import find
from sfumato.core.denoiser import Counted, Denoiser
from sfumato.core.exact import Gaussian, GaussianMixture
from sfumato.core.level import Level
from sfumato.core.noise import normal

BUDGETS = (5, 8, 10, 15, 20, 30, 50)
TOLERANCES = (1e-1, 1e-2, 1e-3, 1e-4)

GRIDS: dict[str, tuple[str, Callable[[int], Level]]] = {
    "karras": ("nsr 80 to 0.002, rho 7 (EDM)", lambda steps: grids.karras(steps)),
    "logsnr": ("nsr 80 to 0.002, even in log-SNR", lambda steps: grids.logsnr(steps)),
    "trailing": (
        "every T/N-th level of DDPM's linear table of 1000",
        lambda steps: grids.trailing(schedules.linear().levels, steps),
    ),
    "flow": ("straight-line times from pure noise", lambda steps: grids.flow(steps)),
}


@dataclass(frozen=True)
class Entry:
    """One row: a sampler with its options.

    Attributes:
        sampler: Its name.
        options: Its options.
        drawn: Whether the picture shows it.
    """

    sampler: str
    options: Mapping[str, object] = field(default_factory=dict)
    drawn: bool = False

    @property
    def label(self) -> str:
        """Its name and options as typed on the command line."""
        return " ".join([self.sampler, *(f"{k}={str(v).lower()}" for k, v in self.options.items())])


ENTRIES = (
    Entry("euler", drawn=True),
    Entry("heun", {"gauge": "ve"}, drawn=True),
    Entry("heun", {"gauge": "flow"}),
    Entry("heun", {"gauge": "vp"}),
    Entry("singlestep", {"order": 2}),
    Entry("singlestep", {"order": 2, "moments": "midpoint"}),
    Entry("singlestep", {"order": 3}),
    Entry("pndm", {"order": 4}, drawn=True),
    Entry("adams", {"order": 2, "gauge": "flow"}),
    Entry("adams", {"order": 3, "gauge": "flow"}, drawn=True),
    Entry("adams", {"order": 4, "gauge": "flow"}),
    Entry("adams", {"order": 3, "gauge": "flow", "lower_final": True}),
    Entry("adams", {"order": 3, "gauge": "vp"}),
    Entry("adams", {"order": 3, "gauge": "ve"}),
    Entry("adams", {"order": 4, "gauge": "ve"}, drawn=True),
    Entry("deis", {"order": 3, "coordinate": "t"}),
    Entry("deis", {"order": 4, "coordinate": "t"}),
    Entry("deis", {"order": 3, "coordinate": "logrho"}, drawn=True),
    Entry("deis", {"order": 4, "coordinate": "logrho"}),
    Entry("dpmpp", {"order": 2, "predict": "noise"}),
    Entry("dpmpp", {"order": 2}, drawn=True),
    Entry("dpmpp", {"order": 2, "moments": "exact"}),
    Entry("dpmpp", {"order": 3}, drawn=True),
    Entry("dpmpp", {"order": 3, "lower_final": True}),
    Entry("dpmpp", {"order": 3, "published": True}),
    Entry("unipc", {"order": 2}, drawn=True),
    Entry("unipc", {"order": 2, "variant": "bh1"}),
    Entry("unipc", {"order": 2, "variant": "exact"}),
    Entry("unipc", {"order": 3}, drawn=True),
    Entry("unipc", {"order": 3, "lower_final": False}),
)


def mixture() -> GaussianMixture:
    """Return the data's exact denoiser."""
    parts = [((-0.6, 0.2), 0.2), ((0.5, -0.3), 0.3)]
    blobs = [
        Gaussian(torch.tensor(mean, dtype=torch.float64), torch.full((2,), std**2, dtype=torch.float64))
        for mean, std in parts
    ]
    return GaussianMixture(torch.tensor([0.35, 0.65], dtype=torch.float64), blobs)


def _no_noise(step: int) -> Tensor:
    raise ValueError(f"This table compares ODE samplers; one asked for noise at step {step}.")


def walk(entry: Entry, denoiser: Denoiser, x: Tensor, grid: Level) -> tuple[Tensor, int]:
    """Return the last x of a sampler and the calls it made."""
    sampler = find.find("sampler", entry.sampler)
    options = find.check_options(f"sampler '{entry.sampler}'", sampler, entry.options, fixed=("noise", "label"))
    counted = Counted(denoiser)
    for state in sampler(counted, x, grid, noise=_no_noise, **options):
        x = state.x
    return x, counted.nfe


def adaptive(denoiser: Denoiser, x: Tensor, start: Level, tolerance: float, method: str) -> tuple[Tensor, float]:
    """Return where the ODE takes x from a level to the clean level, and the mean nfe of an image."""
    grid = Level.stack([start, Level.of(1.0, 1e-6 if method == "DOP853" else 0.002), Level.clean()])
    entry = Entry("adaptive", {"method": method, "rtol": tolerance, "atol": tolerance})
    end, calls = walk(entry, denoiser, x, grid)
    return end, calls / len(x)


def within(
    entry: Entry, denoiser: Denoiser, x: Tensor, grid: Callable[[int], Level], budget: int
) -> tuple[Tensor, int]:
    """Return the end of the longest walk of at most `budget` calls, and its calls."""
    for steps in (budget, budget - 1, (budget + 1) // 2):
        end, nfe = walk(entry, denoiser, x, grid(steps))
        if nfe <= budget:
            return end, nfe
    raise ValueError(f"{entry.label} calls more than twice a step; this table has no number of steps for it.")


def _rms(x: Tensor) -> float:
    return float(x.square().mean().sqrt())


def measure(
    entries: Sequence[Entry] = ENTRIES,
    *,
    names: Sequence[str] = tuple(GRIDS),
    budgets: Sequence[int] = BUDGETS,
    tolerances: Sequence[float] = TOLERANCES,
    images: int = 64,
) -> dict[str, Any]:
    """Measure errors.

    Arguments:
        entries: Rows.
        names: Grids, of `GRIDS`.
        budgets: Calls, rising, each at least 3.
        tolerances: Of the adaptive sampler (RK45 in gauge "vp", down to nsr 0.002).
        images: Number of trajectories.

    Returns:
        Ready for JSON: "images", "budgets"; "grids": name -> label of the entry -> error for every budget (None where
        a sampler cannot walk the grid: gauge "ve" from pure noise); "adaptive": name -> [tolerance, nfe, error] rows.
    """
    denoiser = mixture()
    n = normal(range(images), (2,), purpose="solver_table", dtype=torch.float64)
    result: dict[str, Any] = {"images": images, "budgets": list(budgets), "grids": {}, "adaptive": {}}
    for name in names:
        grid = GRIDS[name][1]
        start = grid(budgets[0])[0]
        x = float(start.sigma) * n
        exact, _ = adaptive(denoiser, x, start, 1e-11, "DOP853")
        rows: dict[str, list[float | None]] = {}
        result["grids"][name] = rows
        for entry in entries:
            if entry.options.get("gauge") == "ve" and start.alpha == 0:
                rows[entry.label] = [None] * len(budgets)
            else:
                rows[entry.label] = [_rms(within(entry, denoiser, x, grid, b)[0] - exact) for b in budgets]
        result["adaptive"][name] = []
        for tolerance in tolerances:
            end, nfe = adaptive(denoiser, x, start, tolerance, "RK45")
            result["adaptive"][name].append([tolerance, nfe, _rms(end - exact)])
    return result


def is_default(entry: Entry) -> bool:
    """Tell whether the options of an entry are the sampler's defaults."""
    allowed = inspect.signature(find.find("sampler", entry.sampler)).parameters
    return all(allowed[name].default == value for name, value in entry.options.items())


def handicap(result: Mapping[str, Any], grid: str, label: str) -> float | None:
    """Return the geometric mean over budgets of a row's error relative to the best row's, >= 1."""
    rows = result["grids"][grid]
    if rows[label][0] is None:
        return None
    ratios = []
    for i, error in enumerate(rows[label]):
        ratios.append(math.log(error / min(row[i] for row in rows.values() if row[i] is not None)))
    return math.exp(sum(ratios) / len(ratios))


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|---" + "|---:" * (len(head) - 1) + "|"]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def markdown(result: Mapping[str, Any], entries: Sequence[Entry] = ENTRIES) -> str:
    """Write the tables."""
    budgets, names = result["budgets"], list(result["grids"])
    shown = {entry.label: f"`{entry.label}`" + (" (default)" if is_default(entry) else "") for entry in entries}
    parts = [
        "# Error against NFE of every ODE sampler",
        "Written by `python benchmarks/solver_table.py`; its documentation states the protocol. Exact denoiser of "
        f"a mixture of two Gaussians in the plane, {result['images']} trajectories, float64. Errors are RMS distances "
        "to the exact end of the probability-flow ODE, in units of the image range [-1, 1]; rounding to 8 bits makes "
        "0.0023. NFE counts calls of the denoiser. `(default)` marks a sampler's default options.",
        "![Error against NFE](solvers.png)",
        "## Summary",
        "Error relative to the best row at equal grid and NFE, geometric mean over NFE "
        f"{', '.join(map(str, budgets))} (1 = always the best; **bold**: at most 1.5).",
    ]
    rows = []
    for label, name in shown.items():
        values = [handicap(result, grid, label) for grid in names]
        cells = ["" if v is None else f"**{v:.1f}**" if v <= 1.5 else f"{v:.1f}" for v in values]
        rows.append([name, *cells])
    parts.append(_table(["sampler", *names], rows))
    parts.append("The best at each budget:")
    rows = []
    for i, budget in enumerate(budgets):
        cells = []
        for grid in names:
            error, label = min((row[i], label) for label, row in result["grids"][grid].items() if row[i] is not None)
            cells.append(f"`{label}` {error:.1e}")
        rows.append([str(budget), *cells])
    parts.append(_table(["NFE", *names], rows))
    for grid in names:
        parts.append(f"## Grid `{grid}`: {GRIDS[grid][0]}")
        errors = result["grids"][grid]
        best = [min(row[i] for row in errors.values() if row[i] is not None) for i in range(len(budgets))]
        rows = [
            [name, *(f"**{e:.1e}**" if e == b else f"{e:.1e}" for e, b in zip(errors[label], best))]
            for label, name in shown.items()
            if errors[label][0] is not None
        ]
        parts.append(_table(["NFE", *map(str, budgets)], rows))
        steps = ", ".join(f"{nfe:.0f} calls {error:.1e}" for _, nfe, error in result["adaptive"][grid])
        asked = ", ".join(f"{tolerance:g}" for tolerance, _, _ in result["adaptive"][grid])
        parts.append(f"`adaptive` from the same start (mean nfe of an image) at tolerances {asked}: {steps}.")
    return "\n\n".join(parts) + "\n"


def picture(result: Mapping[str, Any], entries: Sequence[Entry] = ENTRIES) -> Figure:
    """Draw error against NFE, one panel a grid."""
    names = list(result["grids"])
    columns = min(2, len(names))
    figure = Figure(figsize=(5.6 * columns, 4.2 * math.ceil(len(names) / columns) + 1.1), layout="constrained")
    panels = figure.subplots(math.ceil(len(names) / columns), columns, squeeze=False, sharex=True, sharey=True)
    drawn = [entry for entry in entries if entry.drawn]
    for panel, grid in zip(panels.flat, names):
        for i, entry in enumerate(drawn):
            errors = result["grids"][grid][entry.label]
            if errors[0] is not None:
                style = {"color": f"C{i % 10}", "marker": "os^vD"[i % 5], "markersize": 4, "linewidth": 1.3}
                panel.loglog(result["budgets"], errors, label=entry.label, **style)
        tried = result["adaptive"][grid]
        panel.loglog([nfe for _, nfe, _ in tried], [error for _, _, error in tried], "k*", label="adaptive (mean nfe)")
        panel.axhline(1 / 127.5 / math.sqrt(12), color="0.5", linewidth=0.8, linestyle=":", label="8-bit rounding")
        panel.set_title(f"{grid}: {GRIDS[grid][0]}", fontsize=9)
        panel.set_xticks(result["budgets"], [str(b) for b in result["budgets"]])
        panel.minorticks_off()
        panel.grid(alpha=0.25)
    for panel in panels[-1]:
        panel.set_xlabel("NFE (calls of the denoiser per image)")
    for row in panels:
        row[0].set_ylabel("RMS error of the ODE's end")
    panels[0][0].set_xlim(min(result["budgets"]) * 0.9, max(result["budgets"]) * 1.2)
    handles, labels = panels[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    return figure


def write(result: Mapping[str, Any], out: Path, entries: Sequence[Entry] = ENTRIES) -> Path:
    """Write solvers.md and solvers.png of a result, and return the page's path."""
    out.mkdir(parents=True, exist_ok=True)
    picture(result, entries).savefig(out / "solvers.png", dpi=110)
    page = out / "solvers.md"
    page.write_text(markdown(result, entries))
    return page


def solver_table(out: Path = Path("docs/results"), images: int = 64) -> Path:
    """Measure every ODE sampler against NFE on an exact mixture and write the table and its picture.

    Arguments:
        out: Folder of solvers.json, solvers.md and solvers.png.
        images: Number of trajectories.

    Returns:
        The path of the page.
    """
    result = measure(images=images)
    out.mkdir(parents=True, exist_ok=True)
    (out / "solvers.json").write_text(json.dumps(result, indent=1) + "\n")
    return write(result, out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Error against NFE of every ODE sampler, on an exact mixture.")
    parser.add_argument("--out", type=Path, default=Path("docs/results"), help="folder to write to")
    parser.add_argument("--images", type=int, default=64, help="number of trajectories")
    arguments = parser.parse_args()
    print(solver_table(arguments.out, arguments.images))
