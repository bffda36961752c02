"""A stored study is answered anew from its scores: the same rows, today's rule, no training."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from sfumato.experiments.stored import renew, stored
from sfumato.experiments.summary import results_of
from sfumato.experiments.verdict import verdicts

STUDIES = Path(__file__).parents[2] / "docs" / "results" / "studies"


@pytest.fixture
def attention(tmp_path: Path) -> Path:
    shutil.copytree(STUDIES / "attention", tmp_path / "attention")
    return tmp_path / "attention" / "attention.json"


def test_an_answer_of_an_earlier_rule_is_replaced_and_nothing_else(attention: Path) -> None:
    tree = json.loads(attention.read_text())
    old = [{key: o[key] for key in ("claim", "rows", "metric", "source")} for o in tree["orderings"]]
    attention.write_text(json.dumps({**tree, "orderings": [{**o, "holds": True, "words": "of long ago"} for o in old]}))
    (found,) = results_of(attention.parent)
    assert renew(found)
    renewed = json.loads(attention.read_text())
    assert renewed == tree  # the committed answers are today's
    page = attention.with_suffix(".md").read_text()
    assert "long ago" not in page and "![sheet](attention-sheet.png)" in page
    assert page == (STUDIES / "attention" / "attention.md").read_text()


@pytest.mark.slow
def test_every_committed_study_stands_as_today_s_rule_answers_it() -> None:
    for tree in results_of(STUDIES):
        answers = verdicts(*stored(tree))
        assert [(a.holds, a.words) for a in answers] == [(o["holds"], o["words"]) for o in tree["orderings"]]


def test_a_study_that_is_not_one_of_today_s_stays_as_it_is(attention: Path) -> None:
    text = attention.read_text().replace('"row": "attention"', '"row": "a row of long ago"')
    attention.write_text(text)
    assert not renew(results_of(attention.parent)[0])
    assert attention.read_text() == text
