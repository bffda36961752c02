"""``sfumato evaluate``, ``compare`` and ``demo``: scores with their floors, refusals, and the whole way in one."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.cli import demo as demo_module
from sfumato.cli._arguments import find_recipe


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    """Keep features out of the person's own cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def result_of(said) -> tuple[Path, dict]:
    path = Path(said.out.partition("\nNext:")[0].splitlines()[-1].removeprefix("Written to "))
    return path, json.loads(path.read_text())


def test_the_table_is_the_result_file_and_carries_interval_floor_sizes_and_protocol(labelled: Path, cli) -> None:
    said = cli("evaluate", labelled, "--n", 64, "--steps", 2, "--device", "cpu", "--quiet")
    assert said.code == 0, said.err
    path, tree = result_of(said)
    assert path.parent == labelled / "results"
    assert [score["name"] for score in tree["scores"]] == ["FD[pixels]", "KID[pixels]"]
    for score in tree["scores"]:
        line = next(line for line in said.out.splitlines() if line.startswith(score["name"]))
        assert score["protocol"]["protocol_id"] in line
        assert " 64  360 " in line and score["floor"]["n"] == 64
        assert line.count("[") == 4  # the name's, and the intervals of score, floor and difference
        assert f"* {score['name']}: " in said.out and "too few images" in said.out  # n < 10 d is flagged
    assert tree["provenance"]["nfe"] == 3  # Heun on 2 steps: 2 N - 1
    assert tree["command"].startswith(f"sfumato evaluate {labelled} grid.steps=2 --metrics fd kid --n 64")


def test_the_recorded_command_makes_the_same_scores_again(labelled: Path, cli) -> None:
    words = ["--extract", "pixels", "--sampler", "ddim", "sampler.eta=1", "--grid.steps", 2, "--first-seed", 7]
    said = cli("evaluate", labelled, "--n", 64, *words, "--metrics", "kid", "--device", "cpu", "--quiet")
    assert said.code == 0, said.err
    _, tree = result_of(said)
    again = cli(*tree["command"].split()[1:], "--quiet")
    assert again.code == 0, again.err
    _, same = result_of(again)
    assert same["scores"][0]["value"] == pytest.approx(tree["scores"][0]["value"], rel=1e-4)
    assert same["provenance"]["sampler"] == tree["provenance"]["sampler"] == "ddim(eta=1)"
    assert same["provenance"]["seeds"] == [7, 71]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--extract", "pixel"], "Did you mean 'pixels'?"),
        (["--extract", "fashion-mnist"], "8"),
        (["--metrics", "fid"], "--metrics fd --extract inception"),
        (["--metrics", "kld"], "Did you mean 'kid'?"),
        (["--split", "tset"], "tset"),
        (["--n", "0"], "n must be at least 1"),
        (["--n", "1000000000000"], "at most 10,000,000 images; got 1,000,000,000,000"),
        (["--n", "1"], "1"),
        (["--guidance", "much"], "much"),
        (["--train.batch", "4"], "train.batch belongs to training"),
        (["--use", "powr"], "Unknown average 'powr'"),
        (["--first-sead", "4"], "Did you mean '--first-seed'?"),
    ],
)
def test_bad_input_is_one_clear_message(words: list[str], message: str, labelled: Path, cli) -> None:
    """P18 and the rest."""
    before = sorted(labelled.glob("results/*"))
    n = [] if "--n" in words else ["--n", 64]
    said = cli("evaluate", labelled, *n, "--steps", 2, "--device", "cpu", "--quiet", *words)
    assert said.code == 2, said
    assert message in said.err and "Traceback" not in said.err
    assert sorted(labelled.glob("results/*")) == before


def test_comparing_scores_of_one_protocol_and_refusing_others(labelled: Path, unlabelled: Path, cli) -> None:
    """P17: exit code 3, the fields listed, no difference printed."""
    paths = []
    for n, steps in ((64, 2), (64, 3), (80, 2)):
        said = cli("evaluate", labelled, "--n", n, "--steps", steps, "--device", "cpu", "--quiet")
        tree = result_of(said)[1]
        paths.append(labelled.parent / f"{n}-{steps}.json")
        paths[-1].write_text(json.dumps(tree))
    a, b = (json.loads(path.read_text())["scores"][0]["value"] for path in paths[:2])
    said = cli("compare", *paths[:2])
    assert said.code == 0, said.err
    assert f"{b - a:+.4g}" in said.out
    assert "nfe: 3 -> 5" in said.out
    said = cli("compare", paths[0], paths[2])
    assert said.code == 3
    assert "not made by one protocol" in said.err and "64 against 80" in said.err
    assert "difference" not in said.out
    said = cli("compare", paths[0], unlabelled / "recipe.json")
    assert said.code == 2 and "is not a result" in said.err
    said = cli("compare", paths[0], unlabelled)
    assert said.code == 2 and "holds no results" in said.err


def test_the_demo_goes_from_data_to_pictures_and_numbers(
    tmp_path: Path, small: list[str], cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(demo_module, "find_recipe", lambda name, fields: find_recipe(name, [*small, *fields]))
    said = cli("demo", "--out", tmp_path / "demo", "--device", "cpu")
    assert said.code == 0, said.err
    for section in ("\n1. Learning\n", "\n2. Judging\n", "\n3. Looking\n"):
        assert section in said.out
    for path in ("samples/sheet.png", "samples/sheet-strip.png", "samples/sheet.gif"):
        assert (tmp_path / "demo" / path).stat().st_size > 0
        assert str(tmp_path / "demo" / path) in said.out
    assert "FD[pixels]" in said.out and "KID[pixels]" in said.out and "NFE" in said.out and "above floor" in said.out
    assert "The interval says" in said.out and "The floor, " in said.out
    assert said.out.startswith("sfumato demo: ")
    for line in said.out.splitlines():
        if line.startswith("  sfumato"):  # every command it proposes is one
            assert line.split()[1] in ("report", "sample", "evaluate", "app", "explain", "list")
