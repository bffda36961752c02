"""``sfumato report`` and ``sfumato sweep --score``: the page shows what commands left in the runs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.evaluation import sweep as scoring
from sfumato.report.gather import read_report
from sfumato.report.sections import sections


@pytest.fixture(scope="module", autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


def point(value: str, fd: float, sampler: str = "heun", nfe: int = 5, precision: float | None = None) -> dict:
    def score(name: str, value: float) -> dict:
        return {
            "name": name,
            "value": value,
            "plain": value + 1,
            "interval": [value - 0.5, value + 0.5],
            "n": 100,
            "floor": {"value": 0.25},
            "protocol": {"protocol_id": "abc"},
        }

    scores = [score("FD[x]", fd)]
    scores += [score("precision[x]", precision), score("recall[x]", 1 - precision)] if precision is not None else []
    facts = {"sampler": sampler, "nfe": nfe, "images_per_second": 100 / nfe}
    return {"value": value, "settings": {}, "scores": scores, "provenance": facts}


def test_each_field_has_its_curve() -> None:
    guided = scoring.CURVES["guidance"]([point("1", 3.0, precision=0.5), point("2.5", 2.0, precision=0.7)])
    assert guided["guidance"]["series"]["FD[x]"]["y"] == [3.0, 2.0] and guided["guidance"]["floors"]["FD[x]"] == 0.25
    front = guided["precision_recall"]["series"]["guidance"]
    assert front["x"] == pytest.approx([0.5, 0.3]) and front["y"] == [0.5, 0.7]
    cost = scoring.CURVES["sampler"]([point("heun", 3.0, nfe=9), point("ddim", 4.0, "ddim", 4), point("heun", 9.0)])
    assert cost["nfe"]["series"]["heun"]["x"] == [5, 9] and cost["nfe"]["series"]["heun"]["y"] == [9.0, 3.0]
    assert cost["seconds"]["series"]["ddim"]["x"] == [0.04] and cost["nfe"]["floor"] == 0.25
    size = scoring.CURVES["evaluate.n"]([point("50", 3.0), point("100", 2.0)])["size"]["series"]["textbook value"]
    assert size == {"x": [50.0, 100.0], "y": [4.0, 3.0]}  # the 1/n bias is what is fitted, so it is left in


def test_a_scored_sweep_goes_on_and_fills_the_page(labelled: Path, tmp_path: Path, cli, monkeypatch) -> None:
    words = ["sweep", labelled, "grid.steps=2,3", "--classes", "0", "--score", 48, "-o", tmp_path / "s.png"]
    asked, real = [], scoring.evaluate

    def spy(run, **options):
        asked.append(str(run.recipe.sample.grid))
        if len(asked) == 2:
            raise KeyboardInterrupt
        return real(run, **options)

    monkeypatch.setattr(scoring, "evaluate", spy)
    assert cli(*words, "--device", "cpu").code == 130
    assert len(json.loads(next(labelled.glob("results/sweep-*.json")).read_text())["points"]) == 1
    said = cli(*words, "--device", "cpu")
    assert said.code == 0, said.err
    assert len(asked) == 3  # the first point was not made again
    (file,) = labelled.glob("results/sweep-*.json")
    tree = json.loads(file.read_text())
    assert [p["value"] for p in tree["points"]] == ["2", "3"] and tree["curves"]["nfe"]["protocol_id"]
    assert "sweep of steps" in said.out and (labelled / "results" / f"{file.stem}-nfe.png").exists()
    page = tmp_path / "page.html"
    said = cli("report", labelled, "-o", page)
    assert said.code == 0, said.err
    text = page.read_text()
    assert tree["command"].replace("'", "&#39;") in text and "sweep of steps" in text
    assert "http://" not in text and "https://" not in text
    keys = {s.key: s for s in sections(read_report([labelled]), tmp_path)}
    assert len(keys["nfe"].pictures) == 2 and len(keys) == 14


def test_a_page_finds_pictures_with_their_commands(labelled: Path, unlabelled: Path, tmp_path: Path, cli) -> None:
    assert cli("picture", "strip", labelled, "n=1", "--device", "cpu").code == 0
    said = cli("report", labelled, unlabelled, "-o", tmp_path / "two.html", "--title", "Two runs")
    assert said.code == 0 and "2 runs" in said.out
    text = (tmp_path / "two.html").read_text()
    assert f"sfumato picture strip {labelled} n=1" in text and "Two runs" in text and "Not measured yet" in text
    (labelled / "pictures" / "strip.png").unlink()


def test_every_command_that_an_empty_page_names_is_one(labelled: Path, tmp_path: Path, cli) -> None:
    """A section that was not measured must not send its reader to a flag that does not exist."""
    from sfumato.cli._main import commands

    *named, _ = sections([{"run": "r", "scores": [], "path": str(labelled)}], tmp_path)
    for section in named:
        for command in section.missing.split(";"):
            words = command.split(",")[0].split() if command.strip().startswith("sfumato report") else command.split()
            assert words[0] == "sfumato" and words[1] in commands(), command
            helped = cli(words[1], "--help").out
            assert all(word.split("=")[0] in helped for word in words if word.startswith("--")), command


@pytest.mark.parametrize(
    ("words", "message"),
    [([], "at least one run"), (["nowhere"], "neither a run nor a result"), (["RUN", "-o", "x.pdf"], "as HTML")],
)
def test_bad_reports_say_what_to_do(words: list[str], message: str, labelled: Path, cli) -> None:
    said = cli("report", *[labelled if w == "RUN" else w for w in words])
    assert said.code == 2 and message in said.err and "Traceback" not in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--score", 0], "--score must be at least 1; got 0"),
        (["--score", 50, "--metrics", "fdd"], "fd"),
        (["--score", 50, "--metrics", "per-class"], "Ask `sfumato evaluate`"),
    ],
)
def test_bad_scored_sweeps_say_what_to_do(words: list, message: str, labelled: Path, cli) -> None:
    said = cli("sweep", labelled, "guidance=1,2", *words, "--device", "cpu")
    assert said.code == 2 and message in said.err
