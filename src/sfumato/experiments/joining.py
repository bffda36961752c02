"""Join results of one study that were made apart: on several machines, or seed after seed.

Every row of a result says by which recipe its images were made, as a hash (`Recipe.hash`). That of the same row here,
told the other training seed, must be the same: then both are trainings of one recipe, and differ by their seed alone.
The protocol of every score must be the same too, as wherever scores stand in one table.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from sfumato.core.reading import as_written
from sfumato.experiments.stored import outcomes_of
from sfumato.experiments.study import Outcome, Study, StudyError
from sfumato.runs.override import override

EQUAL = ("name", "scale", "n", "split", "metrics")


def check(study: Study, results: Sequence[Mapping[str, Any]]) -> None:
    """Refuse results that cannot join a study, before anything of it is trained.

    Arguments:
        study: At its scale, with the seeds that are made here.
        results: What `summary.results_of` returned: results of the same study, of some rows or all.

    Raises:
        StudyError: If a result is of another study or size, or holds what is made here, or if together they lack a row
            of some seed.
        FileRefusedError: If a file holds values of another kind than was written.
    """
    made = {(row.name, seed) for row in study.rows for seed in study.seeds}
    for tree in results:
        file = tree["file"]
        with as_written(str(file), "Run its study again."):
            for name in EQUAL:
                mine, other = getattr(study, name), tree[name]
                if other != (list(mine) if isinstance(mine, tuple) else mine):
                    raise StudyError(f"{file} joins a study with the same {name}, {mine}; got {other}. Run it so.")
            pairs = {(outcome.row.name, outcome.seed) for outcome in outcomes_of(study, tree)}
            if both := sorted(made & pairs):
                name, seed = both[0]
                raise StudyError(f"{file} has row {name!r} of seed {seed}, which is here too. Leave one of them out.")
            made |= pairs
    for seed in sorted({seed for _, seed in made}):
        for row in study.rows:
            if (row.name, seed) not in made:
                raise StudyError(
                    f"No result of row {row.name!r} of seed {seed} is among these. Run it, or choose others by --rows."
                )


def joined(
    study: Study, outcomes: Sequence[Outcome], results: Sequence[Mapping[str, Any]]
) -> tuple[Study, list[Outcome]]:
    """Return a study with the training seeds of other results too, and all outcomes, seed by seed.

    Arguments:
        study: At its scale, with its seeds.
        outcomes: Its outcomes (`work.carry_out`), one at least of every row with its run.
        results: As for `check`.

    Raises:
        StudyError: As `check`, and if a row is of another recipe or protocol.
        FileRefusedError: If a file holds values of another kind than was written.
    """
    check(study, results)
    made = {(outcome.row.name, outcome.seed): outcome for outcome in outcomes}
    for tree in results:
        with as_written(str(tree["file"]), "Run its study again."):
            for outcome in outcomes_of(study, tree):
                _check(outcome, [o for o in outcomes if o.row.name == outcome.row.name], str(tree["file"]))
                made[outcome.row.name, outcome.seed] = outcome
    seeds = tuple(sorted({seed for _, seed in made}))
    return study.resized(seeds=seeds), [made[row.name, seed] for seed in seeds for row in study.rows]


def _check(outcome: Outcome, here: Sequence[Outcome], file: str) -> None:
    """Refuse an outcome that is not of the recipe and the protocols of the same row here."""
    where = f"{file}, row {outcome.row.name!r} of seed {outcome.seed}"
    run = next((o.run for o in here if o.run is not None), None)
    if not (outcome.failed or outcome.row.untrained):
        if run is None:
            raise StudyError(f"{where}: no training of this row succeeded here, so its recipe is not known.")
        right, said = override(run.recipe, [f"train.seed={outcome.seed}"]).hash, outcome.facts.get("recipe")
        if said != right:
            raise StudyError(f"{where} must be of the recipe {right}; it is of {said or 'none named'}. Run it again.")
    for metric, score in outcome.scores.items():
        ids = {o.scores[metric].protocol.protocol_id for o in here if metric in o.scores}
        if ids and score.protocol.protocol_id not in ids:
            raise StudyError(
                f"{where}: {metric} has the protocol {score.protocol.protocol_id}; here it is {', '.join(ids)}. "
                "Judge it again."
            )
