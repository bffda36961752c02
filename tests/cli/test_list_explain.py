"""``sfumato list``, ``explain`` and ``runs``: what they print is what the library says."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import time
from pathlib import Path

import pytest
import torch

from sfumato.cli._design import AXES, distance, measured, neighbours
from sfumato.cli.explain import cost_report
from sfumato.core.axes import AXES as DESIGN
from sfumato.core.find import entries, find, meanings, options_of, summary
from sfumato.runs.guided import sampling_cost
from sfumato.runs.override import override
from sfumato.runs.part import Part
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe
from sfumato.runs.resolve import load_data, resolve


def test_every_axis_is_listed_with_all_its_parts(cli) -> None:
    said = cli("list")
    assert said.code == 0
    for axis in DESIGN:
        assert f"\n{axis}: " in "\n" + said.out
        for name in entries(axis):
            assert name in said.out


@pytest.mark.parametrize("axis", sorted(DESIGN))
def test_an_axis_shows_each_part_with_its_first_docstring_line_and_how_to_add_one(axis: str, cli) -> None:
    said = cli("list", axis)
    lines = said.out.splitlines()
    flowing = " ".join(said.out.split())
    for name, entry in entries(axis).items():
        assert name in lines
        assert summary(entry) != "(undocumented)", name
        assert " ".join(summary(entry).split()) in flowing
    assert f"Add one: a function with a docstring, called as {DESIGN[axis].call}, that returns" in flowing
    assert DESIGN[axis].where in flowing


def test_options_are_those_a_person_sets(cli) -> None:
    text = " ".join(cli("list", "samplers").out.split())
    assert "churn=0" in text and "label=" not in text
    assert cli("list", "samplers").out == cli("list", "samplers").out
    assert cli("list", "core.target").out == cli("list", "targets").out


def test_an_unknown_axis_offers_the_nearest(cli) -> None:
    said = cli("list", "smapler")
    assert said.code == 2 and "Unknown axis 'smapler'. Did you mean 'sampler'?" in said.err


def test_explain_shows_the_docstring_every_axis_the_cost_and_every_field(cli) -> None:
    said = cli("explain", "edm-digits", "train.batch=32", "--sample.guidance", "2")
    assert said.code == 0, said.err
    recipe = override(find("recipe", "edm-digits")(), ["train.batch=32", "sample.guidance=2"])
    resolved = resolve(recipe, load_data(recipe, "train"))
    parameters = sum(p.numel() for p in plan(resolved).build_network().parameters())
    assert f"parameters {parameters:,}" in said.out
    assert (find("recipe", "edm-digits").__doc__ or "").strip().splitlines()[0] in said.out
    for axis in AXES:
        assert re.search(rf"^[* ] {axis}\b", said.out, re.MULTILINE), axis
    assert f"{recipe.train.images:,} images = {-(-recipe.train.images // 32):,} steps" in said.out
    fields = {line.split()[0]: line.split() for line in said.out.split("Fields (")[1].split("\n\n")[0].splitlines()[1:]}
    assert fields["train.batch"] == ["train.batch", "a", "whole", "number", "32"]
    assert fields["sample.guidance"][-1] == "2"
    assert fields["sample.sampler.churn"][1:] == ["a", "number", "0"]
    assert "  sfumato train edm-digits train.batch=32 sample.guidance=2   train it" in said.out.splitlines()


@pytest.mark.parametrize(
    ("fields", "steps", "calls"),
    [
        (["sample.sampler=heun", "sample.grid.steps=18"], 18, 35),
        (["sample.sampler=heun", "sample.grid.steps=18", "sample.guidance=2"], 18, 70),
        (["sample.sampler=ddim", "sample.grid.steps=10"], 10, 10),
        (["sample.sampler=ddim", "sample.grid.steps=10", "sample.guidance=0"], 10, 10),
    ],
)
def test_sampling_cost_counts_network_calls_per_image(fields: list[str], steps: int, calls: int) -> None:
    recipe: Recipe = override(find("recipe", "edm-digits")(), fields)
    assert sampling_cost(plan(resolve(recipe, load_data(recipe, "train")))) == (steps, calls)


@pytest.mark.parametrize(
    "name", ["edm-digits", "iddpm-digits", "adm-digits-classifier", "edm-cifar10", "edm-fashion-mnist-cpu"]
)
def test_a_recipe_is_counted_without_its_data_or_says_why_not(name: str, tmp_path: Path) -> None:
    recipe: Recipe = find("recipe", name)()
    text = cost_report(recipe, str(tmp_path), None)
    if recipe.shape is None and recipe.data.name != "digits":
        assert "not counted" in text
    else:
        assert "GMAC" in text
        assert ("sampling" in text) == ("sees" in text) == (plan(recipe).kind.name == "denoiser")


def test_what_a_pixel_sees_is_told_in_the_units_of_what_is_walked() -> None:
    whole = cost_report(find("recipe", "edm-digits")(), None, None)
    assert "sees       62x62 pixels through convolutions; an image has 8x8" in whole
    assert "all of it by attention at 4x4" in whole
    latent = cost_report(find("recipe", "lsgm-digits")(), None, None)
    assert "62x62 positions through convolutions; a latent has 4x4" in latent


def test_recipes_side_by_side_mark_exactly_the_axes_that_differ(cli) -> None:
    said = cli("explain", "edm-digits", "edm-digits", "target=v", "weighting=snr")
    rows = [line for line in said.out.splitlines() if line.startswith("* ") and "differ here" not in line]
    marked = {line[2:13].strip() for line in rows}
    assert marked == {"target", "weighting"}


def test_explain_never_downloads(tmp_path: Path, cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("urllib.request.urlopen", lambda *a, **k: pytest.fail("explain went to the network"))
    words = ["explain", "edm-digits", "data.name=fashion-mnist", "network.patch=2", "network.blocks=1"]
    words += ["--data-root", tmp_path]
    assert "not counted: the images of fashion-mnist are not at hand" in cli(*words).out
    counted = cli(*words, "--shape", "1x28x28", "--classes", 10).out
    assert "GMAC" in counted and "14x14" in counted and "attention" in counted


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "Name the recipe to explain"),
        (["target=v"], "Name the recipe to explain"),
        (["edm-digit"], "Unknown recipe 'edm-digit'. Did you mean 'edm-digits'?"),
        (["edm-digits", "--shape", "28"], "A shape reads CxHxW"),
        (["edm-digits", "--shape", "1x9x9"], "got 9. Nearest: 8 or 10"),
        (["edm-digits", "taget=v"], "Did you mean 'target'?"),
        (["meanflow-digits", "sample.sampler=ancestral"], "sampler=ancestral"),
        (["edm-digits", "data.flip=true", "data.attributes=slant"], "flip"),
    ],
)
def test_bad_input_to_explain(words: list[str], message: str, cli) -> None:
    said = cli("explain", *words)
    assert said.code == 2 and message in said.err and "Traceback" not in said.err


def test_runs_are_read_from_their_small_files(labelled: Path, tmp_path: Path, cli) -> None:
    run = tmp_path / "deep" / "run"
    (run / "results").mkdir(parents=True)
    (run / "recipe.json").write_text((labelled / "recipe.json").read_text())
    (run / "metrics.jsonl").write_text('{"images": 64, "loss": 0.5}\n{"images": 128, "loss": 0.25}\n{"imag')
    for age, value in ((1000, 1.5), (100, 2.5)):
        file = run / "results" / f"{age}.json"
        file.write_text(json.dumps({"run": "run", "scores": [{"name": "FD[pixels]", "value": value}]}))
        os.utime(file, (time.time() - age,) * 2)
    line = next(line for line in cli("runs", tmp_path).out.splitlines() if "deep" in line)
    assert line.split()[1:8] == ["edm-digits", "128", "128", "0.25", "FD[pixels]", "2.5", line.split()[7]]
    newest = run / "results" / "accuracy.json"
    newest.write_text(json.dumps({"run": "run", "scores": []}))  # a result without scores hides none
    line = next(line for line in cli("runs", tmp_path).out.splitlines() if "deep" in line)
    assert "FD[pixels] 2.5" in line
    scored = {"name": "FD[pixels]", "value": 2.5, "interval": [2.4, 2.6]}
    newest.write_text(json.dumps({"run": "run", "scores": [scored]}))
    line = next(line for line in cli("runs", tmp_path).out.splitlines() if "deep" in line)
    assert "FD[pixels] 2.50 [2.40, 2.60]" in line
    (tmp_path / "none").mkdir()
    assert "No runs below" in cli("runs", tmp_path / "none").out


def test_an_unknown_command_offers_the_nearest(cli) -> None:
    said = cli("trian", "edm-digits")
    assert said.code == 2 and "Unknown command 'trian'. Did you mean 'train'?" in said.err


@pytest.mark.slow
def test_explaining_leaves_the_global_generator_alone(cli) -> None:
    before = torch.random.get_rng_state()
    cli("explain", "edm-digits")
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.slow
def test_one_recipe_stands_beside_its_nearest(cli) -> None:
    said = cli("explain", "otcfm-digits")
    (near, *_) = neighbours(find("recipe", "otcfm-digits")(), 1)
    assert near.name == "flow-digits"  # it differs in the coupling and the draw
    heads = next(line for line in said.out.splitlines() if line.split()[:1] == ["otcfm-digits"] and "flow" in line)
    assert heads.split()[:2] == ["otcfm-digits", "flow-digits"]
    marked = {line[2:13].strip() for line in said.out.splitlines() if line.startswith("* ")}
    assert {"objective", "draw"} <= marked
    alone = cli("explain", "otcfm-digits", "--beside", 0).out
    assert "as in the first column" not in alone


def test_a_default_written_out_is_no_difference() -> None:
    recipe: Recipe = find("recipe", "edm-digits")()
    assert distance(recipe, override(recipe, ["draw.mean=-1.2", "sample.sampler.churn=0"])) == (0, 0)
    assert distance(recipe, override(recipe, ["draw.mean=-0.8", "train.batch=3"])) == (1, 2)


def test_all_recipes_are_rows_of_one_table(tmp_path: Path, cli) -> None:
    target = tmp_path / "recipes.md"
    assert cli("explain", "all", "--out", target).code == 0
    lines = [line for line in target.read_text().splitlines() if line.startswith("| ")][2:]
    assert [line.split(" | ")[0].strip("| ") for line in lines] == list(entries("recipe"))
    assert "cosine(steps=4000)" in target.read_text()
    said = dict.fromkeys(entries("recipe"), "-") | {
        name: text for name, entry in entries("recipe").items() if (text := measured(entry))
    }
    assert {line.split(" | ")[0].strip("| "): line.split(" | ")[-1].removesuffix(" |") for line in lines} == said


def test_what_was_measured_is_a_score_with_interval_and_n() -> None:
    """A recipe that was not trained here says nothing; one that was gives its evidence."""
    texts = [text for entry in entries("recipe").values() if (text := measured(entry))]
    assert texts and all(re.match(r"FD\[\w+\] -?[\d.]+ \[-?[\d.]+, -?[\d.]+\].*n = [\d,]+ ", text) for text in texts)


def test_explain_says_in_words_what_a_field_means_and_offers_the_nearest(cli) -> None:
    said = cli("explain", "edm-digits", "--about", "train.clip", "sample.grid")
    assert said.code == 0, said.err
    lines = said.out.splitlines()
    assert lines[:2] == ["train.clip = none   (a number or none)", "    Largest gradient norm; none for no clipping."]
    assert [line.split(" = ")[0] for line in lines if not line.startswith(" ")][1:] == [
        *("sample.grid", "sample.grid.steps", "sample.grid.sigma_min", "sample.grid.sigma_max", "sample.grid.rho")
    ]
    said = cli("explain", "edm-digits", "--about", "train.clp")
    assert said.code == 2 and "Did you mean 'train.clip'?" in said.err and "data.alpha" not in said.err


@pytest.mark.parametrize("axis", sorted(DESIGN))
def test_every_option_of_every_part_says_what_it_means(axis: str) -> None:
    for name, entry in entries(axis).items():
        assert not set(options_of(entry, fixed=DESIGN[axis].fixed)) - set(meanings(entry)), (axis, name)


def test_every_field_of_a_recipe_says_what_it_means() -> None:
    made = find("recipe", "edm-digits")()
    for field in dataclasses.fields(made):
        if dataclasses.is_dataclass(group := getattr(made, field.name)) and not isinstance(group, Part):
            assert {f.name for f in dataclasses.fields(group)} <= set(meanings(type(group))), field.name
