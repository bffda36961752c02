"""A table loses no row, aligns what it writes, and its numbers show the digits that their intervals justify."""

import csv
import io
import math

import pytest

from sfumato.report.table import Cell, csv_table, header, markdown_table, number, show, text_table

ROWS = [
    {"model": "edm", "FD": Cell(12.3456, (11.2, 13.4)), "n": 1000, "images/s": 53.21},
    {"model": "floor | real", "FD": Cell(0.00123, (0.0011, 0.0013)), "n": 898},
    {"model": "ddpm", "n": 1000, "note": "diverged"},
]


@pytest.mark.parametrize("width", [3e-6, 0.0002, 0.26, 1.0, 9.99, 47.0, 5000.0])
@pytest.mark.parametrize("value", [0.0, -0.4, 1.23456, 12345.678])
def test_both_ends_of_an_interval_stay_apart_and_true(value: float, width: float) -> None:
    text = str(Cell(value, (value - width / 3, value + 2 * width / 3))).replace(",", "").replace("[", "").rstrip("]")
    shown, low, high = (float(part) for part in text.split())
    assert low < high
    for got, meant in ((shown, value), (low, value - width / 3), (high, value + 2 * width / 3)):
        assert abs(got - meant) <= 0.051 * width


def test_columns_are_aligned() -> None:
    lines = text_table(ROWS).splitlines()
    assert len(lines) == 2 + len(ROWS)
    spans = []
    for i, char in enumerate(lines[1]):
        if char == "-" and (i == 0 or lines[1][i - 1] == " "):
            spans.append(i)
    for line in [lines[0], *lines[2:]]:
        for start in spans[1:]:
            assert line.ljust(200)[start - 2 : start] == "  "
    assert lines[2].index("11.2") and "-" in lines[4]


def test_csv_keeps_every_digit_and_row() -> None:
    read = list(csv.DictReader(io.StringIO(csv_table(ROWS))))
    assert [r["model"] for r in read] == [r["model"] for r in ROWS]
    assert float(read[0]["FD"]) == 12.3456 and float(read[0]["FD low"]) == 11.2 and float(read[0]["FD high"]) == 13.4
    assert read[2]["FD"] == read[2]["FD high"] == "" and float(read[0]["images/s"]) == 53.21


def test_markdown_has_one_shape_and_escapes_bars() -> None:
    lines = markdown_table(ROWS).splitlines()
    bars = [line.replace("\\|", "").count("|") for line in lines]
    assert set(bars) == {len(header(ROWS)) + 1}
    assert "floor \\| real" in lines[3]


def test_a_dash_is_not_a_zero() -> None:
    assert show(None) == "-" and show(0) == "0" and show(0.0) == "0" and show(True) == "yes"
    assert number(math.inf) == "inf"


def test_no_rows_is_no_table() -> None:
    assert text_table([]) == markdown_table([]) == csv_table([]) == ""


def test_an_interval_of_unknown_width_is_shown_as_it_is() -> None:
    assert str(Cell(1.0, (-math.inf, math.inf))) == "1 [-inf, inf]"
    assert str(Cell(math.nan, (math.nan, math.nan))) == "nan [nan, nan]"
