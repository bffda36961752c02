"""``sfumato schedule``: a grid computed for a run, taken by its name, and what is refused in one sentence."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import sfumato
from sfumato.cli import main
from sfumato.runs.computed import by_levels, say_changes
from sfumato.runs.run import Run

ARGUMENTS = ("--seeds", "16", "--device", "cpu")


@pytest.fixture(scope="module")
def scheduled(labelled: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a grid computed for two steps of ddim."""
    run = Path(shutil.copytree(labelled, tmp_path_factory.mktemp("scheduled") / "run"))
    assert main(["schedule", str(run), "sampler=ddim", "--calls", "2", *ARGUMENTS]) == 0
    return run


@pytest.fixture(scope="module")
def discrete(small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose network knows the five levels of a table."""
    run = tmp_path_factory.mktemp("discrete") / "run"
    fields = [*small, "train.images=64", "schedule=cosine", "schedule.steps=5"]
    assert main(["train", "ddpm-digits", *fields, "--out", str(run), "--device", "cpu", "--quiet"]) == 0
    return run


def test_the_file_holds_the_grid_and_what_it_was_computed_with(scheduled: Path) -> None:
    tree = json.loads((scheduled / "grids" / "computed-2.json").read_text())
    rows = {row["grid"]: row for row in tree["compared"]}
    assert len(tree["alphas"]) == len(tree["sigmas"]) == tree["calls"] == 2
    assert (tree["sampler"], tree["seeds"]) == ("ddim", {"computed": [0, 16], "compared": [16, 32]})
    assert tree["weights"] == Run.open(scheduled).checkpoint.digest("ema-power-0.10")
    assert {"computed", "karras", "logsnr", "uniform"} == rows.keys()
    low, high = rows["computed"]["distance"]["interval"]
    assert low < rows["computed"]["distance"]["value"] < high
    assert rows["karras"]["farther"]["value"] == pytest.approx(
        rows["karras"]["distance"]["value"] - rows["computed"]["distance"]["value"]
    )


def test_a_grid_is_taken_by_its_name_and_captions_name_it(
    cli: Callable[..., Any], scheduled: Path, tmp_path: Path
) -> None:
    out = tmp_path / "sheet.png"
    words = ("--sampler", "ddim", "--n", "2", "--device", "cpu")
    said = cli("sample", scheduled, "--grid", "computed-2", *words, "--out", out)
    assert (said.code, said.err.count("warning")) == (0, 0), said.err
    assert "ddim on computed-2 (2 steps)" in str(Image.open(out).info)
    cli("sample", scheduled, "--grid", "computed-2", *words)
    assert list((scheduled / "samples").glob("*-ddim-computed-2.png"))


def test_python_walks_the_same_grid(scheduled: Path) -> None:
    tree = json.loads((scheduled / "grids" / "computed-2.json").read_text())
    model = sfumato.load(scheduled).sampled("ddim", grid="computed-2")
    assert model.run.plan.grid[:-1].sigma.tolist() == tree["sigmas"]
    assert "computed-2" in repr(model)


def test_other_weights_and_another_sampler_are_said(scheduled: Path) -> None:
    run = Run.open(scheduled)
    with pytest.warns(UserWarning, match="computed for other weights"):
        sfumato.load(scheduled, use="raw").sampled("ddim", grid="computed-2")
    with pytest.warns(UserWarning, match="computed for ddim, and heun walks it"):
        sfumato.load(scheduled).having("sample.grid=computed-2")
    say_changes(run)  # of a grid that is not computed there is nothing to say
    assert by_levels(run, ["grid=karras", "grid=my_module:levels", "sampler=ddim"]) == [
        *("grid=karras", "grid=my_module:levels", "sampler=ddim")
    ]


def test_the_table_of_a_discrete_run_is_chosen_from(cli: Callable[..., Any], discrete: Path) -> None:
    said = cli("schedule", discrete, "sampler=ddim", "--calls", "3", "--name", "three", *ARGUMENTS)
    assert said.code == 0, said.err
    tree, table = json.loads((discrete / "grids" / "three.json").read_text()), Run.open(discrete).plan.table
    assert table is not None and set(tree["sigmas"]) <= set(table.sigma.tolist())
    assert "trailing" in said.out and "The grid karras is not compared: " in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--calls", "1"), "2 to 64 calls; got 1"),
        (("--calls", "65"), "2 to 64 calls; got 65"),
        (("--seeds", "15"), "at least 16 seeds; got 15"),
        (("--name", "karras"), "is no name of `sfumato list grids`; got 'karras'"),
        (("--name", "../mine"), "small letters, digits and dashes"),
        (("sampler=heun", "sampler.stages=3"), "stages"),
        (("sampler=ancestral",), "adds fresh noise"),
    ],
)
def test_bad_input(cli: Callable[..., Any], scheduled: Path, words: tuple[str, ...], message: str) -> None:
    said = cli("schedule", scheduled, *words, "--device", "cpu")
    assert said.code == 2 and message in said.err and "Traceback" not in said.err
    assert said.err.strip().count("\n") == 0


def test_more_calls_than_the_table_has(cli: Callable[..., Any], discrete: Path) -> None:
    said = cli("schedule", discrete, "sampler=ddim", "--calls", "6", "--device", "cpu")
    assert said.code == 2 and "table has 5 levels; got --calls 6" in said.err


def test_a_gan_has_no_levels(cli: Callable[..., Any], tmp_path: Path) -> None:
    run, fields = tmp_path / "gan", ["train.images=64", "train.batch=32", "train.log_every=32"]
    assert main(["train", "dcgan-digits", *fields, "--out", str(run), "--device", "cpu", "--quiet"]) == 0
    said = cli("schedule", run, "--device", "cpu")
    assert said.code == 2 and "Traceback" not in said.err and "trained a generator" in said.err


def test_an_unknown_grid_and_a_damaged_file(cli: Callable[..., Any], scheduled: Path) -> None:
    said = cli("sample", scheduled, "--grid", "computed-3", "--device", "cpu")
    assert said.code == 2 and "Did you mean 'computed-2'" in said.err
    (scheduled / "grids" / "damaged.json").write_text('{"alphas": [1.0]}')
    said = cli("sample", scheduled, "--grid", "damaged", "--device", "cpu")
    assert said.code == 2 and "holds no grid" in said.err and "--name damaged" in said.err
    (scheduled / "grids" / "words.json").write_text('{"alphas": "11", "sigmas": "21", "calls": 7, "overrides": []}')
    said = cli("sample", scheduled, "--grid", "words", "--device", "cpu")  # not the grid of levels 2/1 and 1/1
    assert said.code == 2 and "holds no grid" in said.err and "--calls 7 --name words" in said.err
    (scheduled / "grids" / "number.json").write_text('{"alphas": [1, 1], "sigmas": ["2", true]}')
    said = cli("sample", scheduled, "--grid", "number", "--device", "cpu")
    assert said.code == 2 and "lists of numbers" in said.err


@pytest.mark.parametrize("name", ["none", "true", "e5", "inf"])
def test_the_name_of_a_grid_is_a_text(scheduled: Path, name: str) -> None:
    """Where an option takes a text, nothing is read as a number or as no value."""
    file = scheduled / "grids" / "computed-2.json"
    (scheduled / "grids" / f"{name}.json").write_bytes(file.read_bytes())
    walked = sfumato.load(scheduled).having("sample.grid=computed-2").run.plan.grid
    model = sfumato.load(scheduled).having(f"sample.grid={name}")
    assert model.run.recipe.sample.grid.options["called"] == name
    assert model.run.plan.grid.sigma.tolist() == walked.sigma.tolist()
