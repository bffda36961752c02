"""Pictures of schedules, grids, draws and weightings hold the functions' own numbers."""

import math

import pytest
import torch
from matplotlib.figure import Figure

from sfumato import draws, grids, schedules, weightings
from sfumato.core.level import Level
from sfumato.core.target import eps
from sfumato.report import axes_of_noise


def line_of(figure: Figure, name: str, panel: int = 0) -> tuple[list[float], list[float]]:
    line = next(line for line in figure.axes[panel].lines if line.get_label() == name)
    return list(line.get_xdata()), list(line.get_ydata())


def test_a_schedule_is_drawn_at_its_own_times_and_reports_its_end() -> None:
    table = schedules.linear(1000)
    figure, rows = axes_of_noise.schedules({"linear": table, "flow": schedules.flow()}, power=0.25)
    times, abar = line_of(figure, "linear")
    assert len(times) == 1001 and abar[0] == 1
    product = torch.cumprod(1 - torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64), 0)
    assert abar[-1] == pytest.approx(float(product[-1]), rel=1e-12)
    row = rows[0]
    assert row["levels"] == 1000 and row["abar_T"] == pytest.approx(4.036e-5, rel=1e-3)
    # KL(N(sqrt(abar) x0, 1 - abar) || N(0, 1)) in bits, with x0^2 = 1/4; DDPM reports about 1e-5
    a = float(product[-1])
    assert row["L_T (bits/dim)"] == pytest.approx(0.5 * (a / 4 - a - math.log1p(-a)) / math.log(2), rel=1e-9)
    assert rows[1]["abar_T"] == 0 and rows[1]["L_T (bits/dim)"] == 0


def test_a_grid_is_a_row_of_its_levels() -> None:
    chosen = {"karras": grids.karras(9), "flow": grids.flow(4)}
    figure, rows = axes_of_noise.grids(chosen)
    dots = [list(line.get_xdata()) for line in figure.axes[0].lines]
    assert dots[0] == pytest.approx((-2 * chosen["karras"].nsr[:-1].log()).tolist())
    assert dots[1][0] == axes_of_noise.LEFT  # pure noise, at the edge
    assert [row["steps"] for row in rows] == [9, 4]
    assert rows[0]["first sigma/alpha"] == 80 and rows[1]["first sigma/alpha"] == math.inf
    assert [t.get_text() for t in figure.axes[0].get_yticklabels()] == list(chosen)


def test_a_draw_is_a_density_and_stratification_steadies_a_batch() -> None:
    figure, rows = axes_of_noise.draws({"lognormal": draws.lognormal(mean=-1.2, std=1.2)})
    (seen,) = figure.axes[0].patches
    values, edges, _ = seen.get_data()
    width = edges[1] - edges[0]
    assert sum(values) * width == pytest.approx(1)
    middle = (edges[:-1] + edges[1:]) / 2
    assert sum(values * middle) * width == pytest.approx(2.4, abs=0.01)  # log SNR = -2 ln nsr
    row = rows[0]
    assert row["median"] == pytest.approx(2.4, abs=0.01)
    assert row["95%"] == pytest.approx(2.4 + 2.4 * 1.6449, abs=0.01)
    assert row["sd of the mean of 64"] == pytest.approx(2.4 / 8, rel=0.01)
    assert row["the same, stratified"] < 0.1 * row["sd of the mean of 64"]


def test_a_weight_is_drawn_for_the_image_and_for_the_noise() -> None:
    level = Level.of(1.0, torch.logspace(-3, 2, 51, dtype=torch.float64))
    simple = weightings.simple()(level, eps())
    figure, rows = axes_of_noise.weightings({"simple": (level, simple)})
    _, noise_weight = line_of(figure, "simple", panel=1)
    assert noise_weight == pytest.approx([1.0] * 51)  # L_simple counts errors of the noise equally
    at, image_weight = line_of(figure, "simple", panel=0)
    assert image_weight == pytest.approx([math.exp(v) for v in at])
    assert rows[0]["w at log SNR 0"] == pytest.approx(1, rel=0.2)


def test_more_lines_than_can_be_told_apart_get_panels_of_their_own() -> None:
    many = {f"karras {rho}": schedules.edm(rho=rho) for rho in range(1, 9)}
    figure, rows = axes_of_noise.schedules({**many, "linear": schedules.linear()})
    names = [[line.get_label() for line in ax.lines] for ax in figure.axes[::2]]
    assert names[0] == ["linear"] and max(map(len, names)) <= axes_of_noise.LINES
    assert sorted(sum(names, [])) == sorted([*many, "linear"]) and len(rows) == 9
