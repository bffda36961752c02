"""``sfumato train``: what it leaves, how it goes on, what it refuses and with which exit code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.cli._next import scoring
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe
from sfumato.runs.resolve import training_data
from sfumato.runs.run import Run


def test_a_run_holds_its_resolved_recipe_log_checkpoint_and_sheet(labelled: Path) -> None:
    recipe = Recipe.from_json(json.loads((labelled / "recipe.json").read_text())["recipe"])
    assert recipe.shape is not None and recipe.shape.classes == tuple("0123456789")
    assert (recipe.train.batch, recipe.sample.grid.options["steps"]) == (64, 3)
    records = [json.loads(line) for line in (labelled / "metrics.jsonl").read_text().splitlines()]
    assert [r["images"] for r in records] == [64, 128]
    assert (labelled / "checkpoints" / "step-2" / "MANIFEST.json").exists()
    assert (labelled / "sheets" / "000000128.png").exists()


def test_the_same_command_goes_on_and_another_recipe_is_refused(labelled: Path, small: list[str], cli) -> None:
    words = ["train", "edm-digits", *small, "--out", labelled, "--device", "cpu"]
    before = (labelled / "metrics.jsonl").read_text()
    said = cli(*words)
    assert said.code == 0 and "done" in said.out
    assert (labelled / "metrics.jsonl").read_text() == before
    said = cli(*words, "--train.optimizer.lr", "0.001", "--train.keep", "3")
    assert said.code == 2
    assert "train.optimizer.lr" in said.err and "train.keep" not in said.err and "--allow FIELD" in said.err
    assert "Traceback" not in said.err


def test_allow_continues_with_a_changed_budget(tmp_path: Path, small: list[str], cli) -> None:
    words = ["train", "edm-digits", *small, "--out", tmp_path / "run", "--device", "cpu", "--quiet"]
    assert cli(*words).code == 0
    assert cli(*words, "train.images=192").code == 2
    said = cli("train", tmp_path / "run")
    assert said.code == 2 and "run is a run, not a recipe. To go on with it, repeat its command" in said.err
    assert cli(*words, "train.images=192", "--allow", "train.images").code == 0
    assert json.loads((tmp_path / "run/metrics.jsonl").read_text().splitlines()[-1])["images"] == 192


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["edm-digit"], "Unknown recipe 'edm-digit'. Did you mean 'edm-digits'?"),
        (["edm-digits", "train.btch=8"], "Unknown field 'btch'. Did you mean 'batch'?"),
        (["edm-digits", "sampler=ddim"], "Write sample.sampler=ddim."),
        (["edm-digits", "batch=8"], "Write train.batch=8 or sample.batch=8."),
        (["edm-digits", "--train.batch", "many"], "train.batch must be a whole number; got 'many'"),
        (["edm-digits", "--train.batch", "1.5"], "train.batch must be a whole number; got 1.5"),
        (["edm-digits", "sample.sampler=huen"], "Unknown sampler 'huen'. Did you mean 'heun'?"),
        (["edm-digits", "--sample.sampler.chrn", "3"], "Did you mean 'churn'?"),
        (["edm-digits", "train.precision=fp8"], "train.precision must be fp32, bf16 or bf16-winograd; got 'fp8'"),
        (["edm-digits", "train=3"], "train is a group of fields"),
        (["edm-digits", "--schedule", "edn"], "Unknown schedule 'edn'. Did you mean 'edm'?"),
        (["edm-digits", "--data.name", "digit"], "Unknown dataset 'digit'. Did you mean 'digits'?"),
        (["edm-digits", "network.mult=1,2,2,2,2,2"], "size must be a multiple of 32"),
        (["edm-digits", "sample.grid=full"], "needs 'table', which this recipe does not have"),
        (["edm-digits", "ema.use=power-0.2", "--train.images", "64"], "power-0.2"),
        (["edm-digits", "sample.sampler.midpoint=2"], "sample.sampler.midpoint must be in (0, 1]; got 2"),
        (["edm-digits", "data.labels=false", "sample.guidance=2"], "Guidance needs a class-conditional model"),
        (["edm-digits", "--evaluate.extractor", "pixel"], "Did you mean 'pixels'?"),
        (["edm-digits", "--device", "tpu9"], "There is no device 'tpu9' here"),
        (["edm-digits", "extra"], "An override reads field=value"),
    ],
)
def test_bad_input_is_one_clear_message_and_exit_code_2(words: list[str], message: str, tmp_path: Path, cli) -> None:
    device = () if "--device" in words else ("--device", "cpu")
    said = cli("train", *device, *words, "--out", tmp_path / "run")
    assert said.code == 2, said
    assert message in said.err
    assert "Traceback" not in said.err
    assert not list(tmp_path.glob("run/checkpoints/*")), "a refused recipe trains nothing"


def test_debug_shows_the_stack_trace(cli, tmp_path: Path) -> None:
    said = cli("train", "edm-digit", "--debug", "--out", tmp_path / "run")
    assert said.code == 2
    assert "Traceback" in said.err and "error: Unknown recipe" in said.err


def test_divergence_leaves_with_exit_code_4_and_names_the_step(tmp_path: Path, small: list[str], cli) -> None:
    words = [w for w in small if not w.startswith("train.images")]
    words += ["train.images=6400", "train.optimizer.lr=1e30", "train.bad_in_a_row=2"]
    said = cli("train", "edm-digits", *words, "--out", tmp_path / "run", "--device", "cpu", "--quiet")
    assert said.code == 4
    assert "not finite at step" in said.err and "samples" in said.err and "Traceback" not in said.err


def test_a_missing_data_folder_is_named(tmp_path: Path, cli) -> None:
    said = cli("train", "edm-digits", f"data.name=folder:{tmp_path / 'none'}", "--out", tmp_path / "run")
    assert said.code == 2
    assert str(tmp_path / "none") in said.err and "Traceback" not in said.err


def test_the_score_that_comes_next_asks_for_as_many_images_as_its_floor_can_have(
    labelled: Path, unlabelled: Path
) -> None:
    """Equally many of each class where there are classes; of a model without held-out images, the training images."""
    for path in (labelled, unlabelled):
        run = Run.open(path)
        labels = training_data(run.recipe).labels
        most = 10 * int(labels.bincount().min()) if path == labelled and labels is not None else 1437
        for n, more in ((5000, ["--n", str(most)]), (most, [])):
            chosen = run.with_recipe(override(run.recipe, [f"evaluate.n={n}"]))
            assert scoring(chosen)[0] == ["evaluate", str(path), *more]
        chosen = run.with_recipe(override(run.recipe, ["data.test=0"]))
        assert scoring(chosen)[0] == ["evaluate", str(path), "--split", "train"]
