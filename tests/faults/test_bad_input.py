"""A tired user at the command line: whatever is given, the answer is a rule, a value, a remedy and exit code 2."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.cli.conftest import SMALL, Said
from tests.faults.fields import fields

from sfumato.cli import main
from sfumato.core.bounds import ANY, bounds_of


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bad") / "run"
    words = ["--out", str(folder), "--device", "cpu", "--quiet"]
    assert main(["train", "edm-digits", *SMALL, *words]) == 0
    return folder


@pytest.fixture
def refused(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[..., str]:
    """Run a command that must be refused, and return what it said."""
    monkeypatch.chdir(tmp_path)

    def ask(*words: object) -> str:
        capfd.readouterr()
        said = Said(main([str(word) for word in words]), *capfd.readouterr())
        assert said.code == 2, said
        assert "Traceback" not in said.err and said.err.strip(), said
        return said.err

    return ask


# places


COMMANDS = [
    ("sample", "{}"),
    ("evaluate", "{}"),
    ("sweep", "{}", "guidance=1,2"),
    ("likelihood", "{}"),
    ("encode", "{}"),
    ("compare", "{}", "{}"),
]


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0])
def test_a_place_that_is_no_run_is_refused(words: tuple[str, ...], refused, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("hello")
    for place in ("nowhere", "empty", "file.txt"):
        assert place in refused(*(word.format(place) for word in words))


def damaged(run: Path, to: Path, change: Callable[[dict[str, Any]], Any]) -> Path:
    shutil.copytree(run, to)
    tree = json.loads((to / "recipe.json").read_text())
    answer = change(tree)
    (to / "recipe.json").write_text(answer if isinstance(answer, str) else json.dumps(tree))
    return to


DAMAGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "cut": (lambda tree: json.dumps(tree)[:99], "recipe.json is damaged"),
    "empty": (lambda tree: "", "recipe.json is damaged"),
    "a list": (lambda tree: "[]", "recipe.json is damaged"),
    "a number": (lambda tree: '{"recipe": 3}', "recipe must be a JSON object; got 3"),
    "a field too many": (lambda tree: tree["recipe"].update(foo=1), "Unknown field 'foo'"),
    "a field too few": (lambda tree: tree["recipe"].__delitem__("name"), "must have the field 'name'"),
    "a bare part": (lambda tree: tree["recipe"]["sample"].update(sampler={"name": "heun"}), "an axis, a name and"),
    "a wrong type": (
        lambda tree: tree["recipe"]["train"].update(batch="x"),
        "recipe.train.batch must be a whole number; got 'x'",
    ),
    "no such part": (lambda tree: tree["recipe"]["sample"]["sampler"].update(name="huen"), "Did you mean 'heun'?"),
    "another network": (
        lambda tree: tree["recipe"]["network"]["options"].update(width=32),
        "has shape (16,), and the recipe's has (32,)",
    ),
}


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_recipe_is_named_with_what_is_wrong(name: str, run: Path, refused, tmp_path: Path) -> None:
    change, words = DAMAGES[name]
    assert words in refused("sample", damaged(run, tmp_path / "damaged", change), "--device", "cpu")


def test_a_damaged_file_among_results_is_named(refused, tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"question"')
    assert "cut.json is not JSON" in refused("studies", tmp_path)


def test_places_that_cannot_be_written_are_refused_with_a_remedy(run: Path, refused, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    for words in (("--out", "file/x.png"), ("--images", "file"), ("--out", "x.jpg"), ("--out", "/proc/x.png")):
        said = refused("sample", run, "--n", 1, "--device", "cpu", *words)
        assert "Name it x.png" in said or "another path" in said or "Check the path" in said
    assert "another path" in refused("train", "edm-digits", "--out", "file")
    assert (tmp_path / "file").read_text() == "hello"


# values


VALUES = [
    (("sample", "{}", "--classes", "99"), "Labels lie in [0, 10)"),
    (("sweep", "{}", "guidance=1,2", "--classes", "99"), "Labels lie in [0, 10)"),
    (("sample", "{}", "--classes", "zebra"), "Unknown class 'zebra'"),
    (("sample", "{}", "--guidance", "nan"), "sample.guidance must be a number; got nan"),
    (("sample", "{}", "--guidance", "inf"), "sample.guidance must be finite"),
    (("sample", "{}", "sampler.churn=nan"), "sample.sampler.churn must be a number; got nan"),
    (("sample", "{}", "batch=0"), "sample.batch must be at least 1; got 0"),
    (("sample", "{}", "--n", "1000000000"), "at most 10,000,000 images"),
    (("sample", "{}", "--seeds", "0:99999999999"), "at most 10,000,000 images"),
    (("sample", "{}", "--seeds", "99999999999999999999"), "below 2^63"),
    (("sample", "{}", "--n", "x"), "--n"),
    (("sample", "{}", "--steps", "-1"), "sample.grid.steps must be at least 1; got -1"),
    (("sample", "{}", "--device", "tpu"), "There is no device 'tpu'"),
    (("sweep", "{}", "guidance=1,nan"), "must be a number; got nan"),
    (("sweep", "{}", "guidance=1,2", "--n", "0"), "at least 1 image"),
    (("ema", "{}", "--choose", "--n", "0"), "n must be at least 1; got 0"),
    (("evaluate", "{}", "--first-seed", "-1"), "--first-seed is at least 0; got -1"),
    (("evaluate", "{}", "--split", "foo"), "foo"),
    (("runs", "nowhere"), "There is no such folder: nowhere"),
    (("plot", "schedules", "--power", "nan"), "--power is a positive mean square"),
    (("train", "edm-digits", "train.minutes=nan"), "train.minutes must be a number; got nan"),
    (("train", "edm-digits", "--minutes", "-1"), "train.minutes must be positive and finite; got -1"),
    (("train", "edm-digits", "draw.mean=nan"), "draw.mean must be a number; got nan"),
    (("train", "edm-digits", "train.optimizer.lr=nan"), "train.optimizer.lr must be a number; got nan"),
    (("train", "edm-digits", "network.width=0"), "network.width must be at least 1; got 0"),
    (("train", "edm-digits", "network.mult=0,1"), "network.mult must be at least 1; got 0"),
    (("demo", "--minutes", "nan"), "train.minutes must be a number"),
    (("train", "edm-digits", "train.rate.hold=1.5"), "train.rate.hold must be in [0, 1); got 1.5"),
    (("train", "edm-digits", "train.rate.hold=1"), "train.rate.hold must be in [0, 1); got 1"),
    (("train", "edm-digits", "ema.half_life=0"), "ema.half_life must be positive and finite; got 0"),
    (("train", "edm-digits", "ema.power=0.5"), "ema.power must be in (0, 0.28); got 0.5"),
    (("train", "edm-digits", "train.optimizer.lr=-1"), "train.optimizer.lr must be at least 0; got -1"),
    (("train", "edm-digits", "train.optimizer=adam", "train.optimizer.beta2=1"), "beta2 must be in [0, 1); got 1"),
    (
        ("train", "edm-digits", "train.seed=18446744073709551616"),
        "train.seed must be at most 18,446,744,073,709,551,615",
    ),
    (("train", "edm-digits", "train.seed=-1"), "train.seed must be at least 0; got -1"),
    (("train", "edm-digits", "train.batch=1000000000000"), "train.batch must be at most 16,777,216"),
    (("train", "edm-digits", "train.batch=x"), "train.batch must be a whole number; got 'x'"),
    (
        ("train", "latent-edm-digits"),
        "data.latent=runs/autoencoder-digits is not a run (no recipe.json). Train an auto",
    ),
    (("train", "autoencoder-digits", "network.factor=3"), "factor must be one of 2, 4, 8; got 3"),
    (("train", "autoencoder-digits", "data.pad=9"), "size must be a multiple of 2 (factor 2); got 9. Nearest: 8 or 10"),
    (("train", "lsgm-digits", "objective.near=200"), "from sigma/alpha = near to far; got 200, 100"),
    (
        ("train", "lsgm-digits", "schedule=linear", "c_noise=index", "draw=uniform"),
        "weighs its prior at any noise level",
    ),
    (("train", "edm-digits", "data.name="), "data.name is empty"),
    (("train", "edm-digits", "data.pad=70000"), "data.pad must be at most 65,536"),
    (("train", "edm-digits", "data.val=1"), "data.val must be in [0, 1); got 1"),
    (("train", "edm-digits", "data.augment=2"), "data.augment must be in [0, 1]; got 2"),
    (("train", "edm-digits", "data.first=0"), "data.first must be at least 1; got 0"),
    (("train", "edm-digits", "data.classes=zebra"), "Unknown class 'zebra'"),
    (("train", "edm-digits", "network=huge"), "Unknown network 'huge'"),
    (("train", "edm-digits", "network.depth=3"), "option of network=unet"),
    (("train", "edm-digits", "network=dcgan"), "Use network=unet"),
    (
        ("train", "edm-digits", "network=condnorm-unet", "network.attention=8", "network.conditioning=3"),
        "sizes that fit",
    ),
    (("train", "edm-digits", "sigma_data=0"), "sigma_data must be positive and finite; got 0"),
    (("train", "edm-digits", "weighting.k=3"), "weighting=edm takes no options"),
    (("train", "edm-digits", "schedule=linear"), "would change nothing"),
    (("train", "edm-digits", "sample.grid=respaced"), "Give a discrete schedule"),
    (("train", "edm-digits", "sample.autoguidance=nowhere"), "is not a run (no recipe.json)"),
    (("train", "edm-digits", "sample.autoguidance=@power-0.33"), "Unknown average 'power-0.33'"),
    (
        ("train", "edm-digits", "train.evaluate_every=64", "evaluate.quick=20"),
        "evaluate.quick=20: FD needs at least 40",
    ),
    (("train", "edm-digits", "evaluate.n=1"), "evaluate.n must be at least 2; got 1"),
    (("train", "edm-digits", "train.track=nosuch"), "nosuch"),
    (("train", "nosuch"), "Unknown recipe 'nosuch'"),
    (("trian", "edm-digits"), "Did you mean 'train'"),
    (("sample", "{}", "sampler=huen"), "Did you mean 'heun'"),
    (("sample", "{}", "sampler.midpoint=0"), "sample.sampler.midpoint must be in (0, 1]; got 0"),
    (("sample", "{}", "sampler.churn=-1"), "sample.sampler.churn must be at least 0; got -1"),
    (("sample", "{}", "interval=1,2"), "limits guidance"),
    (("sample", "{}", "guidance=2", "interval=1000,2000"), "must hold at least one level of the grid"),
    (("sample", "{}", "guidance=2", "interval=2,1"), "must hold at least one level of the grid"),
    (("sample", "{}", "--steps", "0"), "steps must be at least 1; got 0"),
    (("sample", "{}", "--n", "0"), "n must be at least 1; got 0"),
    (("sample", "{}", "sampler=ddim", "sampler.clip=-1"), "sample.sampler.clip must be at least 0; got -1"),
    (("train", "latent-edm-digits", "data.latent=@raw"), "data.latent=@raw names no run"),
    (("sample", "{}", "size=0"), "sample.size must be at least 1; got 0"),
    (("sample", "{}", "--use", "power-0.99"), "Unknown average"),
    (("sample", "{}", "train.batch=3"), "belongs to training"),
    (("evaluate", "{}", "--n", "1"), "needs at least 40 images"),
    (("explain", "edm-digits", "network.width=0"), "network.width must be at least 1; got 0"),
    (("list", "nosuch"), "nosuch"),
]


@pytest.mark.parametrize(("words", "expected"), VALUES, ids=[" ".join(words) for words, _ in VALUES])
def test_a_value_that_means_nothing_is_refused(words: tuple[str, ...], expected: str, run: Path, refused) -> None:
    said = refused(*(word.format(run) for word in words))
    assert expected in said
    message = said[said.rfind("error: ") :] if "error: " in said else said
    assert len(re.findall(r"[.?](?:\s|$)", message)) <= 4 or words[0] == "list", message


def test_explain_prints_nothing_before_it_refuses(capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "edm-digits", "network=condnorm-unet", "network.heads=1,1", "network.depths=2,2"]) == 2
    assert capfd.readouterr().out == ""


LEAST = {path: bounds_of(hint).least for path, hint in fields() if bounds_of(hint) != ANY}


@pytest.mark.parametrize("field", LEAST)
def test_numbers_below_their_least_are_refused_before_any_work(field: str, refused, tmp_path: Path) -> None:
    value = LEAST[field] - 1
    assert f"{field} must be" in refused("train", "edm-digits", *SMALL, f"{field}={value}")
    assert not list(tmp_path.rglob("checkpoints"))


# what a file may name


MANIFESTS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "a device": lambda tree: tree["files"].update({"/dev/zero": {"size": 0, "sha256": ""}}),
    "a way out": lambda tree: tree["files"].update({"../../../x.safetensors": tree["files"]["network.safetensors"]}),
    "no name": lambda tree: tree["files"].update({"": {"size": 0, "sha256": ""}}),
    "no hash": lambda tree: tree["files"].update({"state.json": 3}),
    "a list": lambda tree: tree.update(files=[]),
    "nothing": lambda tree: tree.pop("files"),
    "no owner": lambda tree: tree.pop("belongs"),
    "null": lambda tree: "null",
    "nested": lambda tree: "[" * 100_000,
}


@pytest.mark.parametrize("name", MANIFESTS)
def test_a_manifest_names_its_own_files_only(name: str, run: Path, refused, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for file in copy.glob("checkpoints/*/MANIFEST.json"):
        tree = json.loads(file.read_text())
        answer = MANIFESTS[name](tree)
        file.write_text(answer if answer == "null" or str(answer).startswith("[[") else json.dumps(tree))
    assert "MANIFEST.json" in refused("sample", copy, "--device", "cpu")


def test_a_checkpoint_holds_no_links(run: Path, refused, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    for folder in (copy / "checkpoints").iterdir():
        (folder / "network.safetensors").rename(tmp_path / "elsewhere")
        (folder / "network.safetensors").symlink_to(tmp_path / "elsewhere")
    assert "is a link" in refused("sample", copy, "--device", "cpu")


def test_a_recipe_that_is_a_pipe_is_refused_at_once(run: Path, refused, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    (copy / "recipe.json").unlink()
    os.mkfifo(copy / "recipe.json")
    for words in (["sample", copy], ["sample", run, f"classifier={copy}"], ["evaluate", copy]):
        assert "must be a file; it is a pipe" in refused(*words, "--device", "cpu")


@pytest.mark.parametrize(("option", "words"), [("width", "the recipe's has"), ("blocks", "at most 5,000 layers")])
def test_a_recipe_that_asks_for_a_giant_is_refused_before_it_is_built(
    option: str, words: str, run: Path, refused, tmp_path: Path
) -> None:
    copy = damaged(run, tmp_path / "copy", lambda tree: tree["recipe"]["network"]["options"].update({option: 10**6}))
    assert words in refused("sample", copy, "--device", "cpu")
