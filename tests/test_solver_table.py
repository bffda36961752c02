"""The solver table: its reference ends are exact, its budgets are kept, and its page says what was measured."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import solver_table as study
from benchmarks.solver_table import ENTRIES, Entry

from sfumato import grids
from sfumato.core import find
from sfumato.core.level import Level

pytest.importorskip("scipy")

FIXTURES = Path(__file__).parent / "parity" / "data" / "D_solvers.npz"
FEW = (
    Entry("euler", drawn=True),
    Entry("heun", {"gauge": "ve"}),
    Entry("dpmpp", {"order": 2}, drawn=True),
    Entry("adams", {"order": 3, "gauge": "flow"}),
)


@pytest.fixture(scope="module")
def result() -> dict:
    return study.measure(FEW, names=("karras", "flow"), budgets=(5, 20), tolerances=(1e-2, 1e-4), images=4)


def test_the_reference_end_is_exact():
    """The mixture is that of the parity fixtures, whose ends were integrated independently at tolerance 1e-13."""
    with np.load(FIXTURES) as stored:
        x, end = (torch.as_tensor(stored[f"data_gmm/{key}"]) for key in ("x_init_ve", "ode_endpoint_sigma0"))
    ours, _ = study.adaptive(study.mixture(), x, Level.of(1.0, 80.0), 1e-11, "DOP853")
    assert float((ours - end).abs().max() / end.abs().max()) < 1e-8


def test_rows_are_distinct_and_their_options_exist():
    labels = [entry.label for entry in ENTRIES]
    assert len(set(labels)) == len(labels)
    for entry in ENTRIES:
        find.check_options(entry.label, find.find("sampler", entry.sampler), entry.options)


def test_every_sampler_is_in_the_table_with_its_defaults():
    ode = set(find.entries("sampler")) - {"ancestral", "ddim", "dpmpp-sde", "adaptive", "predictor-corrector"}
    assert {entry.sampler for entry in ENTRIES if study.is_default(entry)} == ode


@pytest.mark.parametrize(
    ("sampler", "budget", "nfe"), [("euler", 10, 10), ("heun", 10, 9), ("heun", 5, 5), ("pndm", 10, 10)]
)
def test_budgets_are_kept_and_used(sampler, budget, nfe):
    x = torch.full((2, 2), 40.0, dtype=torch.float64)
    assert study.within(Entry(sampler), study.mixture(), x, grids.karras, budget)[1] == nfe


def test_errors_fall_with_calls_and_order(result):
    rows = result["grids"]["karras"]
    assert all(error[1] < error[0] for error in rows.values())
    assert rows["adams order=3 gauge=flow"][1] < rows["dpmpp order=2"][1] < rows["euler"][1]
    assert result["grids"]["flow"]["heun gauge=ve"] == [None, None]
    (_, loose, large), (_, tight, small) = result["adaptive"]["karras"]
    assert loose < tight and small < large


def test_handicap(result):
    values = {label: study.handicap(result, "karras", label) for label in result["grids"]["karras"]}
    best = [min(row[i] for row in result["grids"]["karras"].values()) for i in (0, 1)]
    euler = result["grids"]["karras"]["euler"]
    assert values["euler"] == pytest.approx((euler[0] / best[0] * euler[1] / best[1]) ** 0.5)
    assert min(values.values()) >= 1
    assert study.handicap(result, "flow", "heun gauge=ve") is None


def test_the_page_and_the_picture(result, tmp_path):
    page = study.write(result, tmp_path, FEW)
    text = page.read_text()
    assert "`dpmpp order=2` (default)" in text and "## Grid `flow`" in text
    for row in result["grids"].values():
        assert all(f"{error:.1e}" in text for errors in row.values() for error in errors if error is not None)
    assert (tmp_path / "solvers.png").stat().st_size > 10_000
    figure = study.picture(result, FEW)
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert len(panels) == 2
    drawn = panels[f"karras: {study.GRIDS['karras'][0]}"].lines[0]
    assert list(drawn.get_ydata()) == result["grids"]["karras"]["euler"]
