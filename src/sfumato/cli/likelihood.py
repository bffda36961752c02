"""``sfumato likelihood``: bits per dimension of a run, term by term."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, Number, Text, again, device_named, refuse_idle, seed_list


def likelihood(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    *,
    n: int = 200,
    seeds: Text = None,
    splits: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("test", "train"),
    parts: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("vlb", "ode"),
    steps: Count = None,
    near: Number = None,
    variance: Name = None,
    unlabelled: bool = False,
    tolerance: float = 1e-4,
    gauge: Name = None,
    use: Name = None,
    device: Name = None,
    data_root: Folder = None,
    quiet: bool = False,
) -> int:
    """Measure bits per dimension: the variational bound term by term, and the likelihood along the ODE.

    The bound is counted on the run's own table of levels; a continuous run (EDM, flow matching) has none, and a chain
    is chosen and named. A run that walks latents has the bound of autoencoder and prior, in bits of pixels. Both are
    for equally many test and training images, with intervals over images. Written to RUN/results as JSON and pictures.
    Killed and started again, it goes on.

    Arguments:
        run: Directory of a run.
        n: Images of each split.
        seeds: Seeds of the noise, 0:4 or a list; each image is measured with every one and averaged; 0 unless given.
        splits: Which real images: test, train, val; images are the same for every run.
        parts: vlb, ode or both.
        steps: Steps of the chain; the whole table of a discrete run, else 200, unless given.
        near: Noise sigma/alpha at the cleanest level of a chosen chain; 0.01, where DDPM's ends.
        variance: Variance of the reverse steps: small, large, learned, diagonal, small-own; the run's own unless given.
        unlabelled: Do not tell a conditional model the classes.
        tolerance: Tolerance of the ODE solver for each image, relative and absolute.
        gauge: Coordinate of the ODE: ve, flow or vp; the run's own unless given.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
        quiet: No progress bar.
    """
    command = again(likelihood, locals())
    if parts == ("ode",):
        refuse_idle(likelihood, locals(), ("steps", "near", "variance"), "The likelihood along the ODE alone")
    if parts == ("vlb",):
        refuse_idle(likelihood, locals(), ("tolerance", "gauge"), "The bound alone")
    print(f"sfumato likelihood {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.codelength.latents import bits_of_pixels
    from sfumato.codelength.result import Asked
    from sfumato.report.results import rows_of
    from sfumato.report.table import text_table
    from sfumato.runs.run import Run

    chosen = tuple(seed_list(seeds, None, 1))
    asked = Asked(n, splits, parts, chosen, steps, near, variance, not unlabelled, tolerance, gauge)
    tree, path = bits_of_pixels(
        Run.open(run), asked, use=use, root=data_root, device=device_named(device), command=command, quiet=quiet
    )
    for title in tree["tables"]:
        print(f"\n{title}\n{text_table(rows_of(tree, title))}")
    if "chain" in tree["provenance"]:
        print(f"\nThe bound's chain: {tree['provenance']['chain']}; variance {tree['provenance']['variance']}.")
    if "bound" in tree["provenance"]:
        print(f"\nThe bound of latents: {tree['provenance']['bound']}.")
    if "ode" in tree["provenance"]:
        print(f"The ODE: {tree['provenance']['ode']}.")
    print("Written: " + ", ".join(map(str, [path, *draw(tree, path)])))
    return 0


def draw(tree: Mapping[str, Any], path: Path) -> list[Path]:
    """Draw the curves of a result beside it and return their paths.

    Arguments:
        tree: The result.
        path: Its file; pictures are named after it.
    """
    from sfumato.report.curve_kinds import CURVES
    from sfumato.report.save import save

    return [
        save(
            CURVES[name][1](numbers),
            path.with_name(f"{path.stem}-{name.replace('_', '-')}.png"),
            command=tree.get("command", ""),
        )
        for name, numbers in (tree.get("curves") or {}).items()
    ]
