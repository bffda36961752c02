"""Share a study among processes of this machine, or among the jobs of a cluster.

The unit of work is a run of one training seed with the rows that sample it; classifiers that guide come before. Units
meet in files only: a run directory and a result each, written whole or not at all, so a unit that is lost is done again
and one that is done is skipped. After all units the study is carried out in order, which then finds everything done.

    processes     ProcessPoolExecutor, started afresh (spawn), the cores divided among them
    a cluster     submitit's AutoExecutor: "slurm", or "local" (the same, on this machine)
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from typing import Any, Protocol

import torch

from sfumato.core.find import assigned, parse
from sfumato.core.optional import optional
from sfumato.experiments.study import Study, StudyError
from sfumato.experiments.work import Workspace, outcome_of
from sfumato.progress import say


class Job(Protocol):
    """A unit handed over: its result is None, or its error is raised."""

    def result(self) -> object:
        """Wait for the unit; raise its error if it had one."""
        ...


class Executor(Protocol):
    """Take a function and its arguments to some process."""

    def submit(self, function: Callable[..., object], /, *arguments: Any) -> Job:
        """Hand over a call; return the job that stands for it."""
        ...


def units(study: Study) -> list[list[tuple[int, str]]]:
    """Return the units of a study, (training seed, run or guide), in stages: what a later stage needs comes before.

    Arguments:
        study: Study at its scale.
    """
    names = dict.fromkeys(row.trained for row in study.rows)
    first, students = [n for n in names if n not in study.starts], [n for n in names if n in study.starts]
    stages = [[(seed, name) for seed in study.seeds for name in those] for those in (study.guides, first, students)]
    return [stage for stage in stages if stage]


def do_unit(study: Study, seed: int, name: str, space: Workspace, threads: int = 0) -> None:
    """Do one unit: train a guide, or train a run and judge its rows.

    Arguments:
        study: Study at its scale.
        seed: Training seed of the run.
        name: Name of the guide, or of the run that rows sample.
        space: Directories and device.
        threads: Threads of this process; 0 to leave them.
    """
    if threads:
        torch.set_num_threads(threads)
    if name in study.guides:
        space.run(name, study.guides[name], seed)
        return
    for row in study.rows:
        if row.trained == name:
            outcome_of(study, row, seed, space)


def share(study: Study, space: Workspace, executor: Executor, *, threads: int = 0, quiet: bool = False) -> None:
    """Hand a study's units to an executor, stage by stage, and wait.

    Arguments:
        study: Study at its scale.
        space: Directories and device.
        executor: Runs the units.
        threads: Threads of each process; 0 to leave them.
        quiet: Whether to print no lines.

    Raises:
        Exception: The first error of a unit, after all of its stage have ended: what the others did is kept.
    """
    for stage in units(study):
        jobs = {executor.submit(do_unit, study, seed, name, space, threads): (seed, name) for seed, name in stage}
        errors = []
        for count, job in enumerate(_in_order_of_end(list(jobs)), start=1):
            seed, name = jobs[job]
            try:
                job.result()
                said = "done"
            except Exception as error:  # of another process, of any kind: told when the others have ended
                errors.append(error)
                said = f"{type(error).__name__}: {error}"
            if not quiet:
                say(f"[{count}/{len(stage)}] {name}, training seed {seed}: {said}")
        if errors:
            raise errors[0]


def _in_order_of_end(jobs: Sequence[Any]) -> Iterator[Any]:
    if jobs and isinstance(jobs[0], Future):
        yield from as_completed(jobs)
    else:
        from submitit.helpers import as_completed as by_submitit

        yield from by_submitit(list(jobs))


@contextmanager
def processes(count: int) -> Iterator[tuple[Executor, int]]:
    """Start processes on this machine; yield the executor and the threads of each.

    Arguments:
        count: How many, >= 1.

    Raises:
        StudyError: If the count is not positive.
    """
    if count < 1:
        raise StudyError(f"A study is shared by at least one process; got {count}.")
    with ProcessPoolExecutor(count, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield pool, max(1, (os.cpu_count() or 1) // count)


def cluster(name: str, folder: str, options: Mapping[str, Any], at_once: int) -> Executor:
    """Return submitit's executor.

    Arguments:
        name: "slurm" or "local".
        folder: Directory of its logs.
        options: Options of `AutoExecutor.update_parameters`, e.g. timeout_min, slurm_partition, gpus_per_node.
        at_once: Jobs at a time.

    Raises:
        StudyError: If submitit is not installed, or refuses an option.
    """
    submitit = optional("submitit", "cluster", "A job of a cluster", StudyError)
    try:
        executor = submitit.AutoExecutor(folder=folder, cluster=name)
        limited = {"slurm_array_parallelism": at_once} if name == "slurm" else {}
        executor.update_parameters(**{"timeout_min": 24 * 60, "name": "sfumato", **limited, **options})
    except (NameError, TypeError, ValueError, RuntimeError) as error:
        raise StudyError(f"submitit does not take these options on cluster {name!r}: {error}") from None
    return executor


def options_of(text: str | None) -> dict[str, Any]:
    """Read options of a cluster: "timeout_min=60,slurm_partition=gpu".

    Raises:
        StudyError: If the text does not read so.

    >>> options_of("timeout_min=60,slurm_partition=gpu")
    {'timeout_min': 60, 'slurm_partition': 'gpu'}
    """
    pieces = text.split(",") if text else []
    if wrong := [piece for piece in pieces if "=" not in piece]:
        raise StudyError(f"Options of a cluster read NAME=VALUE,NAME=VALUE; got {wrong[0]!r}.")
    return {name: parse(value) for name, value in assigned(pieces).items()}
