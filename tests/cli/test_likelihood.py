"""``sfumato likelihood``: what it prints is what it writes, and a comparison of bits obeys the protocol."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cli.options import beside

from sfumato.codelength.result import Asked, file_of, measured_sets
from sfumato.runs.run import Run

QUICK = ["--steps", 4, "--tolerance", 0.1, "--device", "cpu", "--quiet"]


@pytest.fixture(scope="module")
def measured(labelled: Path) -> Path:
    from sfumato.cli import main

    assert main(["likelihood", str(labelled), "--n", "6", *map(str, QUICK)]) == 0
    return next((labelled / "results").glob("likelihood-test-train-n6-*.json"))


def test_the_result_holds_terms_scores_curves_and_pictures(measured: Path, labelled: Path, cli) -> None:
    tree = json.loads(measured.read_text())
    assert [s["name"] for s in tree["scores"]] == ["bits/dim[VLB]", "bits/dim[ODE]"] * 2
    assert [r["split"] for r in tree["tables"]["likelihood"]] == ["test", "train"]
    assert {p.name.removeprefix(f"{measured.stem}-") for p in measured.parent.glob(f"{measured.stem}-*.png")} == {
        "rate-distortion.png",
        "bits-by-level.png",
    }
    assert not list(measured.parent.glob(".likelihood*"))  # the blocks are gone
    assert tree["scores"][0]["n"] == tree["scores"][2]["n"] == 6
    assert tree["provenance"]["chain"].startswith("4 levels chosen evenly in log-SNR")
    said = cli(*tree["command"].split()[1:], "--device", "cpu", "--quiet")
    assert said.code == 0, said.err
    again = json.loads(measured.read_text())
    assert again["scores"] == tree["scores"] and again["per_image"] == tree["per_image"]
    for column in ("bits/dim (VLB)", "L_T", "KL terms", "L_0", "bits/dim (ODE)", "test - train (ODE)"):
        assert column in said.out
    assert "The bound's chain: 4 levels chosen" in said.out and "tolerance 0.1 per image" in said.out


def test_a_result_is_named_by_its_images_and_by_settings_in_full(labelled: Path) -> None:
    """Blocks of a killed measurement lie under its name, so another must not take them."""
    run, asked = Run.open(labelled), Asked(6, ("test",), ("vlb",), (0,))
    data = measured_sets(run, asked, None)[0]["test"]
    others = [replace(data, images=255 - data.images), replace(data, labels=data.labels.flip(0))]
    names = {file_of(run, asked, {}, {"test": one}) for one in (data, *others)}
    names |= {file_of(run, replace(asked, rtol=asked.rtol * (1 + 1e-9)), {}, {"test": data})}
    assert len(names) == 4 and file_of(run, asked, {}, {"test": data}) in names


def test_bits_are_compared_by_protocol(measured: Path, labelled: Path, cli) -> None:
    said = cli("compare", measured, measured)
    assert said.code == 0 and "not distinguishable" in said.out and "bits/dim[VLB]" in said.out
    assert cli("likelihood", labelled, "--n", 5, "--parts", "vlb", "--splits", "test", *QUICK[:2]).code == 0
    other = next((labelled / "results").glob("likelihood-test-n5-*.json"))
    said = cli("compare", measured, other)
    other.unlink()
    assert said.code == 3 and "difference" not in said.out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--n", 1], "n >= 2"),
        (["--n", 100_000], "100000 were asked for"),
        (["--parts", "vbl"], "Did you mean 'vlb'"),
        (["--splits", "tset"], "tset"),
        (["--near", 1e-9], "lies in"),
        (["--gauge", "vq"], "vq"),
        (["--variance", "learned"], "returns None"),
        (["--tolerance", 2], "[1e-8, 0.1]"),
        (["--use", "powr"], "powr"),
    ],
)
def test_bad_input_is_one_clear_message(words: list, message: str, labelled: Path, cli) -> None:
    before = sorted(labelled.glob("results/*"))
    said = cli("likelihood", labelled, *([] if "--n" in words else ["--n", 4]), *beside(words, QUICK), *words)
    assert said.code == 2, said
    assert message in said.err and "Traceback" not in said.err
    assert sorted(labelled.glob("results/*")) == before
