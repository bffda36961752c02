"""Curves draw the numbers they are given, all of them, and fit what they say they fit."""

import json

import matplotlib
import numpy as np
import pytest
from matplotlib.figure import Figure

from sfumato.report import curves
from sfumato.report.plot import COLOURS, Series, lines
from sfumato.report.results import read_metrics
from sfumato.report.save import encode
from sfumato.report.table import Cell
from sfumato.report.training import has_levels, loss_by_level, training_curves
from sfumato.training.log_bins import BIN_EDGES

A = Series.of([5, 17, 35, 63], [20, 9, 5, 4], [19, 8, 4.5, 3.5], [21, 10, 5.5, 4.5])
B = Series.of([5, 17, 35], [30, 12, 7])


def texts(figure: Figure) -> str:
    found = [t.get_text() for t in figure.findobj(matplotlib.text.Text)]
    return "\n".join(found)


def lines_of(figure: Figure, axes: int = 0) -> list[tuple[list[float], list[float]]]:
    return [(list(line.get_xdata()), list(line.get_ydata())) for line in figure.axes[axes].lines]


def test_series_keep_their_numbers_as_json() -> None:
    for s in (A, B):
        assert Series.from_json(json.loads(json.dumps(s.to_json()))) == s
    with pytest.raises(ValueError, match="2 x, 1 y"):
        Series.of([1, 2], [1])
    with pytest.raises(ValueError, match="or neither"):
        Series.of([1], [1], [0])


def test_every_sampler_is_a_named_line_above_its_floor() -> None:
    figure = curves.against_nfe({"heun": A, "euler": B}, score="FD[digits]", floor=1.25, caption="n = 1000.")
    drawn = lines_of(figure)
    assert (list(A.x), list(A.y)) in drawn and (list(B.x), list(B.y)) in drawn
    assert any(set(ys) == {1.25} for _, ys in drawn)
    for word in ("heun", "euler", "FD[digits]", "floor 1.25", "NFE", "n = 1000."):
        assert word in texts(figure)
    assert figure.axes[0].get_xscale() == "log" and figure.get_label() == "n = 1000."


def test_guidance_rings_the_best_of_each_score() -> None:
    w = [1, 2, 3]
    panels = {"FD[x]": Series.of(w, [5, 3, 4]), "recall": Series.of(w, [0.7, 0.8, 0.5]), "saturation": Series.of(w, w)}
    figure = curves.against_guidance(panels, floors={"FD[x]": 1.0})
    rings = [[list(line.get_xdata()) for line in ax.lines if line.get_markersize() == 12] for ax in figure.axes]
    assert rings == [[[2]], [[2]], []]


def test_the_size_fit_is_exact_on_its_own_law_and_least_squares_otherwise() -> None:
    n = np.array([100, 300, 1000, 5000])
    limit, slope = curves.fit_against_size(Series.of(n, 7 + 450 / n))
    assert abs(limit - 7) < 1e-9 and abs(slope - 450) < 1e-6
    y = np.array([12.0, 9.5, 7.1, 7.4])
    limit, slope = curves.fit_against_size(Series.of(n, y))
    residual = y - limit - slope / n
    assert abs(residual.sum()) < 1e-9 and abs((residual / n).sum()) < 1e-9  # the normal equations
    figure = curves.against_size({"edm": Series.of(n, 7 + 450 / n)})
    assert "edm: FD∞ = 7, slope 450" in texts(figure) and "∞" in texts(figure)
    with pytest.raises(ValueError, match="two sizes; 'edm' has 1"):
        curves.against_size({"edm": Series.of([10], [1])})


def test_bars_stand_at_their_class() -> None:
    scores = {"edm": {"0": Cell(0.1, (0.05, 0.2)), "1": Cell(0.3)}, "gan": {"1": Cell(0.5)}}
    figure = curves.class_bars(scores)
    bars = {(round(b.get_x() + b.get_width() / 2), b.get_height()) for b in figure.axes[0].patches}
    assert bars == {(0, 0.1), (1, 0.3), (1, 0.5)}
    assert [t.get_text() for t in figure.axes[0].get_xticklabels()] == ["0", "1"]


def test_rate_and_distortion_stand_on_their_own_axes() -> None:
    figure = curves.rate_distortion({"ddpm": A}, {"ddpm": (A, B)})
    assert [len(ax.lines) for ax in figure.axes] == [1, 1, 1]
    by_label = {ax.get_ylabel() + ax.get_xlabel(): lines_of(figure, i)[0] for i, ax in enumerate(figure.axes)}
    assert by_label["rate (bits/dim)reverse steps done"] == (list(A.x), list(A.y))
    assert by_label["distortion (RMSE on 0..255)reverse steps done"] == (list(B.x), list(B.y))
    assert len(curves.rate_distortion({"ddpm": A}).axes) == 1


def test_distance_histograms_share_edges_and_sum_to_one() -> None:
    figure = curves.distances({"generated": [1, 1.1, 3], "test": [2, 2.5, 3, 4]})
    steps = [patch.get_data() for patch in figure.axes[0].patches]
    assert np.array_equal(steps[0].edges, steps[1].edges)
    assert all(abs(s.values.sum() - 1) < 1e-12 for s in steps)
    assert "generated (n = 3, median 1.1)" in texts(figure)


def test_points_of_a_front_carry_their_setting() -> None:
    figure = curves.precision_recall({"cfg": Series.of([0.8, 0.5], [0.6, 0.9])}, {"cfg": ["w = 1", "w = 3"]})
    assert "w = 1" in texts(figure) and "w = 3" in texts(figure)


def record(i: int, **other) -> dict:
    levels = [None, *(1.0 / (i + 1) for _ in range(len(BIN_EDGES)))]
    return {
        "step": i,
        "images": 100 * i,
        "loss": 1 / (i + 1),
        "grad_norm": 0.5,
        "lr": 1e-3 * i,
        "skipped": 2,
        "loss_by_log_snr": levels,
    } | other


def test_training_curves_show_every_record(tmp_path) -> None:
    file = tmp_path / "metrics.jsonl"
    file.write_text("".join(json.dumps(record(i)) + "\n" for i in range(6)) + '{"step": 6, "ima')
    records = read_metrics(file)
    assert [r["step"] for r in records] == list(range(6))
    figure = training_curves({"run": records})
    for axes, key in enumerate(("loss", "grad_norm", "lr")):
        assert lines_of(figure, axes)[0] == ([r["images"] for r in records], [r[key] for r in records])
    assert "2 steps were skipped" in figure.get_label()
    with pytest.raises(ValueError, match="no record"):
        training_curves({"run": []})


def test_loss_by_level_leaves_out_empty_bins_and_shows_the_last_record() -> None:
    figure = loss_by_level([record(i) for i in range(9)], moments=2)
    (x, y), (_, late) = lines_of(figure)
    assert len(x) == len(BIN_EDGES) and x[0] == (BIN_EDGES[0] + BIN_EDGES[1]) / 2  # the first, open bin is empty
    assert y == [0.2] * len(x) and late == [1 / 9] * len(x)
    with pytest.raises(ValueError, match="bins of ln SNR"):
        loss_by_level([record(0, loss_by_log_snr=[1.0])])


def test_an_autoencoder_has_no_loss_by_noise_level() -> None:
    """It was drawn as one point above another."""
    assert has_levels([record(0), record(1)])
    assert not has_levels([record(i, loss_by_log_snr=[None] * 10 + [1.0]) for i in range(3)]) and not has_levels([{}])


def test_figures_need_no_global_state_and_repeat_exactly() -> None:
    import sys

    before = "matplotlib.pyplot" in sys.modules
    first, second = (encode(curves.against_nfe({"heun": A}, caption="seeds 0..9")) for _ in range(2))
    assert first == second and b"seeds 0..9" in first
    assert ("matplotlib.pyplot" in sys.modules) == before


def test_no_two_lines_of_a_plot_look_the_same() -> None:
    """Also beyond as many as there are colours."""
    ax = Figure().add_subplot()
    lines(ax, {f"line {i}": Series.of([0, 1], [i, i + 1]) for i in range(3 * len(COLOURS))})
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in ax.get_lines()}
    assert len(looks) == 3 * len(COLOURS)
