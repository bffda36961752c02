"""``sfumato study``: a table of recipes that answers one question."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, Text, device_named, refusal, refuse_idle


def study(
    name: Annotated[Positional[str], arg(metavar="NAME")],
    *,
    scale: Literal["tiny", "cpu", "cpu28", "lossy", "paper"] = "cpu",
    rows: Annotated[tuple[str, ...], arg(metavar="ROW ...", help_behavior_hint="")] = (),
    seeds: Annotated[tuple[int, ...], arg(metavar="SEED ...", help_behavior_hint="")] = (),
    join: Annotated[tuple[str, ...], arg(metavar="FILE ...", help_behavior_hint="")] = (),
    out: Folder = None,
    runs: Folder = None,
    estimate: bool = False,
    jobs: Annotated[int, arg(metavar="N")] = 1,
    cluster: Name = None,
    cluster_options: Text = None,
    device: Name = None,
    data_root: Folder = None,
    quiet: bool = False,
) -> int:
    """Run a study: train its runs, judge its rows, and write the table, the orderings and the pictures.

    The estimated cost is printed first. Run again after an interruption, it goes on where it was; what is done is
    skipped, and a row is judged anew only if something that it depends on has changed.

    Arguments:
        name: Name of a study; see `sfumato list studies`.
        scale: tiny (seconds, on digits), cpu (two cores, on Fashion-MNIST at 14x14), cpu28 (hours, at 28x28), lossy (as
            cpu, on cats and frogs of CIFAR-10 as JPEG files, to be compared only with themselves) or paper.
        rows: Only these rows, by name, and the orderings between them; all unless given. Their table takes the place of
            the whole one, so give another --out (and --runs, to share what is trained).
        seeds: Training seeds; those of the scale unless given.
        join: Results of this study with other training seeds, made elsewhere (NAME.json, or the folder that holds it);
            they are put beside those of these seeds if they are of the same recipes.
        out: The study's directory; runs/studies/NAME-SCALE unless given.
        runs: Where trained runs lie, so that studies may share them; the study's directory unless given.
        estimate: Print the cost and stop.
        jobs: Processes that share the work, or jobs of a cluster at a time.
        cluster: slurm, or local (the same on this machine), to hand the work to submitit.
        cluster_options: Options of submitit, e.g. timeout_min=60,slurm_partition=gpu.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
        quiet: Print nothing but the tables and errors.
    """
    if cluster is None:
        refuse_idle(study, locals(), ("cluster_options",), "A study on this machine, without --cluster,")
    print(f"sfumato study {name} --scale {scale}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.experiments import cost, joining, pages, summary, verdict, work
    from sfumato.experiments import jobs as sharing
    from sfumato.experiments.study import find_study
    from sfumato.report.table import text_table

    asked = find_study(name, scale)
    if rows:
        asked = asked.only(rows)
    if seeds:
        asked = asked.resized(seeds=tuple(dict.fromkeys(seeds)))
    elsewhere = []
    for file in join:
        if not (found := summary.results_of(Path(file))):
            raise refusal(f"--join names results of sfumato study, NAME.json; {file} holds none.")
        elsewhere += found
    joining.check(asked, elsewhere)
    price = cost.estimate(asked, data_root)
    print(f"{asked.question}\nCost: {price}.", flush=True)
    if estimate:
        return 0
    folder = Path(out or f"runs/studies/{asked.name}-{scale}")
    space = work.Workspace(folder, Path(runs) if runs else folder / "runs", data_root, device_named(device), quiet=True)
    if cluster is not None:
        executor = sharing.cluster(cluster, str(folder / "jobs"), sharing.options_of(cluster_options), max(1, jobs))
        sharing.share(asked, space, executor, quiet=quiet)
    elif jobs != 1:
        with sharing.processes(jobs) as (pool, threads):
            sharing.share(asked, space, pool, threads=threads, quiet=quiet)
    outcomes = work.carry_out(asked, folder, runs=runs, root=data_root, device=device_named(device), quiet=quiet)
    if join:
        own = len(asked.seeds)
        asked, outcomes = joining.joined(asked, outcomes, elsewhere)
        price = price.of_seeds(len(asked.seeds), before=own)
    chosen = [*(("--rows", *rows) if rows else ()), *(("--seeds", *map(str, asked.seeds)) if seeds else ())]
    command = shlex.join(["sfumato", "study", asked.name, "--scale", scale, *chosen])
    written = pages.write(asked, outcomes, price, folder, command)
    print(text_table(pages.lines(asked, outcomes, price.parameters)))
    for answer in verdict.verdicts(asked, outcomes):
        print(f"{answer.ordering.claim}: {answer.words}")
    print("Written: " + ", ".join(map(str, written)))
    return 0
