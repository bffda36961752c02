"""``sfumato plot``: names, options and recipes become columns; what does not exist is refused."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from PIL import Image

from sfumato.cli.plot import AXES, column
from sfumato.core.find import entries
from sfumato.report.save import description
from sfumato.runs.plan import make, plan


@pytest.mark.parametrize("room", AXES)
def test_every_entry_of_a_room_is_drawn_unless_some_are_named(room: str, tmp_path: Path, cli) -> None:
    said = cli("plot", room, "--out", tmp_path / "a.png")
    assert said.code == 0, said.err
    named = {line.split()[0] for line in said.out.splitlines()[2:-1]}
    known = set(entries(room))
    assert named == (known - {"importance"} if room == "draws" else known)  # importance starts as uniform
    with Image.open(tmp_path / "a.png") as picture:
        assert min(picture.size) > 400
    assert room.capitalize() in description(tmp_path / "a.png")


def test_options_belong_to_the_name_before_them(tmp_path: Path, cli) -> None:
    said = cli("plot", "schedules", "linear", "linear", "steps=4000", "vp", "--out", tmp_path / "a.png")
    assert said.code == 0, said.err
    rows = [line.split() for line in said.out.splitlines()[2:-1]]
    assert [row[:2] for row in rows] == [["linear", "1,000"], ["linear", "steps=4000"], ["vp", "continuous"]]
    assert rows[1][2] == "4,000"


def test_a_grid_is_made_from_the_schedule_that_is_named() -> None:
    plain = plan(column("grids", "full", [])).grid
    own = plan(column("grids", "full", ["schedule=cosine", "schedule.steps=40"])).grid
    given = plan(column("grids", "full", ["schedule.steps=40"], schedule="cosine")).grid
    assert len(plain) == 1001 and len(own) == 41
    assert bool((own.sigma == given.sigma).all())
    assert len(plan(column("grids", "respaced", ["spec=ddim20"])).grid) == 21


def test_a_recipe_stands_for_its_own_choice() -> None:
    chosen = column("draws", "edm-cifar10", ["mean=-0.8"])
    assert chosen.draw.name == "lognormal" and chosen.draw.options["mean"] == -0.8
    level = make(chosen.draw, {})(torch.tensor([0.5], dtype=torch.float64))
    assert float(level.nsr) == pytest.approx(math.exp(-0.8))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["grids", "karas"], "Unknown part of grids 'karas'. Did you mean 'karras'?"),
        (["grids", "karras", "roh=3"], "Did you mean 'rho'?"),
        (["schedules", "steps=3"], "Name one of the schedules"),
        (["schedules", "linear", "steps=many"], "steps must be a whole number"),
        (["grids", "full", "schedule=flow"], "needs 'table'"),
        (["weightings", "vlb", "schedule=vp"], "needs 'table'"),
        (["schedules", "linear", "--out", "a.jpg"], "Pictures are written as PNG"),
    ],
)
def test_bad_input_to_plot(words: list[str], message: str, tmp_path: Path, cli, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = cli("plot", *words)
    assert said.code == 2 and message in said.err and "Traceback" not in said.err
    assert not list(tmp_path.iterdir())
