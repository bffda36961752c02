"""The page over all studies: every ordering stands under its answer, with n, interval, floor and command."""

from __future__ import annotations

import json

import pytest

from sfumato.cli import main
from sfumato.experiments.summary import results_of, summary


def tree(name, *answers):
    score = {
        "name": "FD[digits]",
        "value": 1.5,
        "interval": [1.0, 2.0],
        "floor": {"name": "FD[digits]", "value": 0.1, "interval": [0.0, 0.2]},
    }
    worse = {**score, "value": 3.0, "interval": [2.5, 3.5]}
    return {
        "name": name,
        "scale": "tiny",
        "question": "Why?",
        "n": 200,
        "seeds": [0],
        "metrics": ["fd"],
        "command": f"sfumato study {name} --scale tiny",
        "rows": [
            {"row": "bad", "scores": {"fd": worse}},
            {"row": "good", "scores": {"fd": score}},
            {"row": "none", "scores": {}},
        ],
        "orderings": [
            {
                "claim": f"{name} {holds}",
                "source": "a paper",
                "words": f"said {holds}",
                "holds": holds,
                "difference": 0.5,
                "interval": [-0.5, 1.5],
                "budget": "about 5 training seeds",
            }
            for holds in answers
        ],
    }


@pytest.fixture
def folder(tmp_path):
    for name, answers in (("one", (True, False)), ("two", (None,))):
        where = tmp_path / "studies" / name
        where.mkdir(parents=True)
        (where / f"{name}.json").write_text(json.dumps(tree(name, *answers)))
    (tmp_path / "studies" / "other.json").write_text("[1, 2]")
    return tmp_path / "studies"


def test_each_ordering_stands_under_its_answer(folder, tmp_path):
    text = summary(results_of(folder), tmp_path / "studies.md")
    held, did_not, noise = (text.index(h) for h in ("## What held", "## What did not", "## Undecided"))
    assert held < text.index("one True") < did_not < text.index("one False") < noise < text.index("two None")
    command = "`sfumato study one --scale tiny`"
    for needed in (command, "good: FD[digits] 1.5", "[one, tiny](studies/one/one.md)", "200"):
        assert needed in text, needed
    assert "bad: FD" not in text


def test_a_claim_shows_its_interval_its_seeds_and_if_undecided_what_would_tell(folder, tmp_path):
    text = summary(results_of(folder), tmp_path / "studies.md")
    undecided = text[text.index("## Undecided") :]
    assert "0.5 [-0.5, 1.5]" in undecided and "about 5 training seeds" in undecided
    assert "about 5 training seeds" not in text[: text.index("## Undecided")]
    assert "1: images only" in undecided


def test_a_study_at_cpu_scale_needs_no_word_for_it(folder, tmp_path):
    file = folder / "one" / "one.json"
    file.write_text(file.read_text().replace('"scale": "tiny"', '"scale": "cpu"'))
    assert "[one](studies/one/one.md)" in summary(results_of(folder), tmp_path / "studies.md")


def test_each_study_has_a_row_that_counts_its_answers(folder, tmp_path):
    text = summary(results_of(folder), tmp_path / "studies.md")
    rows = [line.split(" | ") for line in text[: text.index("## What held")].splitlines() if line.startswith("| [")]
    assert [row[3:6] for row in rows] == [["1", "1", "0"], ["0", "0", "1"]]


def test_the_command_writes_the_page(folder, tmp_path):
    assert main(["studies", str(folder)]) == 0
    page = tmp_path / "studies.md"
    assert page.read_text() == summary(results_of(folder), page)
