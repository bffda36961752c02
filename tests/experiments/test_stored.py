"""A stored study is answered anew from its scores: the same rows, today's rule, no training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sfumato.core.reading import FileRefusedError
from sfumato.experiments.stored import renew, stored
from sfumato.experiments.summary import results_of
from sfumato.experiments.verdict import verdicts

STUDIES = Path(__file__).parents[2] / "docs" / "results" / "studies"


@pytest.fixture
def result(tmp_path: Path) -> Path:
    shutil.copytree(STUDIES / "timesteps", tmp_path / "timesteps")
    return tmp_path / "timesteps" / "timesteps.json"


def test_an_answer_of_an_earlier_rule_is_replaced_and_nothing_else(result: Path) -> None:
    tree = json.loads(result.read_text())
    old = [{key: o[key] for key in ("claim", "rows", "metric", "source")} for o in tree["orderings"]]
    result.write_text(json.dumps({**tree, "orderings": [{**o, "holds": True, "words": "of long ago"} for o in old]}))
    (found,) = results_of(result.parent)
    assert renew(found)
    renewed = json.loads(result.read_text())
    assert renewed == tree  # the committed answers are today's
    page = result.with_suffix(".md").read_text()
    assert "long ago" not in page and "![sheet](timesteps-sheet.png)" in page
    assert page == (STUDIES / "timesteps" / "timesteps.md").read_text()


@pytest.mark.slow
def test_every_committed_study_stands_as_today_s_rule_answers_it() -> None:
    for tree in results_of(STUDIES):
        answers = verdicts(*stored(tree))
        assert [(a.holds, a.words) for a in answers] == [(o["holds"], o["words"]) for o in tree["orderings"]]


def test_a_study_that_is_not_one_of_today_s_stays_as_it_is(result: Path) -> None:
    text = result.read_text().replace('"row": "T = 1000"', '"row": "a row of long ago"')
    result.write_text(text)
    assert not renew(results_of(result.parent)[0])
    assert result.read_text() == text


@pytest.mark.parametrize("key", ["rows", "orderings", "cost"])
def test_a_damaged_file_is_named_and_its_page_stays(key: str, result: Path) -> None:
    page = result.with_suffix(".md").read_text()
    result.write_text(json.dumps({**json.loads(result.read_text()), key: [3]}))
    with pytest.raises(FileRefusedError, match="timesteps.json"):
        renew(results_of(result.parent)[0])
    assert result.with_suffix(".md").read_text() == page
