"""A study shared among processes, or jobs of a cluster, is the study carried out by one."""

from __future__ import annotations

import pickle
from concurrent.futures import Future
from pathlib import Path

import pytest

from sfumato.experiments import jobs, judges, work
from sfumato.experiments.jobs import cluster, options_of, processes, share, units
from sfumato.experiments.study import Row, Study, StudyError, find_study
from sfumato.experiments.work import Workspace, carry_out
from sfumato.runs.override import override
from sfumato.studies._bases import edm


@pytest.fixture(scope="module")
def study() -> Study:
    recipe = override(edm("tiny"), ["train.images=32", "train.batch=16", "sample.grid.steps=2", "data.first=64"])
    other = override(recipe, ["train.optimizer.lr=0.001"])
    rows = (Row("a", recipe), Row("b", other), Row("a, longer", recipe, ("sample.grid.steps=3",), run="a"))
    return Study("mine", "tiny", "?", "-", "-", "", rows, ("kid",), 40, seeds=(0, 1))


class Here:
    """An executor that works at once, in this process, from a pickled copy as another process would."""

    def submit(self, function, /, *arguments):
        job = Future()
        try:
            job.set_result(function(*pickle.loads(pickle.dumps(arguments))))
        except Exception as error:
            job.set_exception(error)
        return job


def test_units_are_runs_and_guides_come_first(study: Study) -> None:
    assert units(study) == [[(0, "a"), (0, "b"), (1, "a"), (1, "b")]]
    guided = find_study("classifier-guidance", "tiny")
    assert units(guided) == [[(0, "classifier")], [(0, "model")]]


def test_after_sharing_nothing_is_left_to_do(study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Workspace(tmp_path, tmp_path / "runs", device="cpu", quiet=True)
    share(study, place, Here(), quiet=True)
    monkeypatch.setattr(work, "train", None)
    monkeypatch.setattr(judges, "evaluate", None)
    outcomes = carry_out(study, tmp_path, device="cpu", quiet=True)
    assert [(o.seed, o.row.name) for o in outcomes] == [(s, n) for s in (0, 1) for n in ("a", "b", "a, longer")]
    assert all(o.scores for o in outcomes)


def test_an_error_of_one_unit_is_raised_after_the_others_are_done(
    study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = []

    def fail_for_a(study, seed, name, place, threads):
        if name == "a":
            raise RuntimeError("disk full")
        done.append((seed, name))

    monkeypatch.setattr(jobs, "do_unit", fail_for_a)

    class Unpickled(Here):
        def submit(self, function, /, *arguments):
            job = Future()
            try:
                job.set_result(function(*arguments))
            except Exception as error:
                job.set_exception(error)
            return job

    with pytest.raises(RuntimeError, match="disk full"):
        share(study, Workspace(tmp_path, tmp_path), Unpickled(), quiet=True)
    assert done == [(0, "b"), (1, "b")]


def test_bad_requests_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="at least one process; got 0"), processes(0):
        pass
    with pytest.raises(StudyError, match="NAME=VALUE"):
        options_of("timeout_min")
    pytest.importorskip("submitit")
    with pytest.raises(StudyError, match="does not take these options"):
        cluster("local", str(tmp_path), {"no_such_option": 1}, 1)


@pytest.mark.slow
def test_two_processes_do_the_work_of_one(study: Study, tmp_path: Path) -> None:
    alone = carry_out(study, tmp_path / "alone", device="cpu", quiet=True)
    place = Workspace(tmp_path / "shared", tmp_path / "shared" / "runs", device="cpu", quiet=True)
    with processes(2) as (pool, threads):
        share(study, place, pool, threads=threads, quiet=True)
    together = carry_out(study, tmp_path / "shared", device="cpu", quiet=True)
    for a, b in zip(alone, together):
        assert a.scores["kid"].value == pytest.approx(b.scores["kid"].value, rel=1e-3)


@pytest.mark.slow
def test_jobs_of_a_local_cluster_do_the_work(study: Study, tmp_path: Path) -> None:
    pytest.importorskip("submitit")
    place = Workspace(tmp_path, tmp_path / "runs", device="cpu", quiet=True)
    executor = cluster("local", str(tmp_path / "jobs"), {"timeout_min": 10}, 1)
    share(study.resized(seeds=(0,)), place, executor, quiet=True)
    assert sorted(path.name for path in (tmp_path / "results").iterdir()) == [
        "a-longer-seed0.json",
        "a-seed0.json",
        "b-seed0.json",
    ]
