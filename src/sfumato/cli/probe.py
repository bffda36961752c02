"""``sfumato probe``: what a linear classifier reads inside a run's network."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, again, device_named


def probe(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    *,
    at: Annotated[tuple[float, ...], arg(metavar="LEVEL ...", help_behavior_hint="")] = (),
    block: Annotated[tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="")] = (),
    n: Count = None,
    m: Count = None,
    split: str = "test",
    use: Name = None,
    device: Name = None,
    data_root: Folder = None,
    quiet: bool = False,
) -> int:
    """Ask a linear classifier which class an image is of, by what the run's network holds inside.

    Images get the noise of a level, the network looks at them without being told a class, and the output of a block is
    averaged over space. Accuracy is on held-out images, with 95% intervals, beside that of raw pixels and of as many
    principal components, both of clean images. Of a GAN the discriminator is probed. Written to RUN/results as JSON,
    with a picture of accuracy against level and block, and a sheet of nearest neighbours in the best block's features.

    Arguments:
        run: Directory of a run on data with classes; the model need not have been told them.
        at: Noise levels sigma/alpha; several over the levels of training unless given.
        block: Blocks by their paths in the network, e.g. middle; input, middle and output blocks unless given.
        n: Training images of the classifier; all, and at most 5,000, unless given.
        m: Held-out images; all, and at most 2,000, unless given.
        split: Held-out part of the data: test or val.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        device: cpu, cuda, mps, ...; the best at hand unless given.
        data_root: One folder a dataset; the variable SFUMATO_DATA or the cache unless given.
        quiet: No progress bar.
    """
    command = again(probe, locals())
    print(f"sfumato probe {run}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.cli.evaluate import draw_panels, row_table
    from sfumato.cli.likelihood import draw
    from sfumato.core.writing import replace_json
    from sfumato.evaluation.probe import probe as measure
    from sfumato.runs.run import Run

    result = measure(
        Run.open(run), at=at, blocks=block, n=n, m=m, split=split, use=use, root=data_root,
        device=device_named(device), quiet=quiet,
    )  # fmt: skip
    tree = {**result.to_json(), "command": command}
    for name, rows in result.tables.items():
        print(f"\n{name}\n{row_table(rows)}")
    for flag in result.provenance["flags"]:
        print(flag)
    tree["pictures"] = draw_panels(result, command)
    replace_json(result.path, tree)
    print("Written: " + ", ".join(map(str, [result.path, *draw(tree, result.path)])))
    return 0
