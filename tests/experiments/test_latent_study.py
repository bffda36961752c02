"""The study of latents runs at its smallest: four trainings, one of them on what another encodes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from sfumato.experiments.study import Outcome, Row
from sfumato.experiments.work import Workspace, outcome_of
from sfumato.runs.override import override
from sfumato.studies.latent import latent
from sfumato.training.loop import train

FEWER = ("train.images=128", "data.first=128", "sample.grid.steps=3")


def test_its_runs_share_a_budget_and_the_second_stage_waits_for_the_first() -> None:
    for scale in ("tiny", "cpu"):
        study = latent(scale)
        seen = {name: recipe.train.images for name, recipe in study.runs.items()}
        assert seen["pixels"] == seen["joint"] == seen["two stages"] + seen["autoencoder"]
        assert study.starts == {"two stages": "autoencoder"}
        sizes = {recipe.data.size for recipe in study.runs.values()}
        assert len(sizes) == 1


def test_a_row_that_draws_no_images_is_left_out_of_the_sheet(tmp_path: Path) -> None:
    study = latent("tiny").only(["autoencoder"])
    run = train(override(study.rows[0].recipe, FEWER[:2]), tmp_path, quiet=True, device="cpu")
    assert study.pictures(study, [Outcome(study.rows[0], 0, run, {}, {})]) == {}


@pytest.mark.slow
def test_it_runs(tmp_path: Path) -> None:
    study = latent("tiny")
    rows = tuple(
        Row(row.name, override(row.recipe, [*FEWER] if row.name != "autoencoder" else FEWER[:2]), judge=row.judge)
        for row in study.rows
    )
    study = replace(study, rows=rows, n=40, metrics=("fd", "kid"))
    space = Workspace(tmp_path / "out", tmp_path / "runs", None, "cpu", True)
    found = {row.name: outcome_of(study, row, 0, space) for row in study.rows}
    assert not any(outcome.failed for outcome in found.values())
    for name in ("pixels", "two stages", "joint"):
        assert set(found[name].scores) == {"fd", "kid"} and found[name].facts["figures"]["bits/dim, bound"][0] > 0
    assert "PSNR in dB" in found["autoencoder"].facts["figures"] and "PSNR in dB" in found["joint"].facts["figures"]
    assert set(study.pictures(study, list(found.values()))) == {"sheet"}
    encoder = found["two stages"].run.encoder_run()[0]
    assert encoder.path == found["autoencoder"].run.path
    assert outcome_of(study, rows[1], 0, space).run.checkpoint.path == found["two stages"].run.checkpoint.path
