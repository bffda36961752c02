"""``sfumato fd``: the distance between any two sets of images, features or statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, again, refusal


def fd(
    first: Annotated[Positional[str], arg(metavar="A")],
    second: Annotated[Positional[str], arg(metavar="B")],
    *,
    extract: Name = None,
    weights: Folder = None,
    resize: Name = None,
    metrics: Annotated[tuple[str, ...], arg(metavar="NAME ...")] = ("fd", "kid"),
    save_stats: Folder = None,
    out: Folder = None,
    data_root: Folder = None,
    quiet: bool = False,
) -> int:
    """Judge images A (generated) against images B (reference): the Frechet distance and others.

    Each set is a folder or .zip of images, an .npy or .npz file of images (uint8) or features (float), or a dataset
    with its split (fashion-mnist@test); B may be a statistics file (.npz with mean and cov, or mu and sigma).

    Arguments:
        first: Images A: a folder, .zip, .npy, .npz or DATASET@SPLIT.
        second: Images B: the same, or a statistics file.
        extract: Feature extractor of images; see `sfumato list extractors`; random unless given, inception for FID.
        weights: Weights file of the extractor (inception, dinov2, resnet), or "download" for inception; that of its
            usual name in the data root unless given.
        resize: How inception resizes images: tf1, half_pixel or clean.
        metrics: Which of: fd, kid, prdc (precision, recall, density, coverage), fd-infinity, 1nn.
        save_stats: Write B's statistics to this .npz file, to be given as B later.
        out: Write the scores to this .json file, which `sfumato compare` reads.
        data_root: Folder with a sub-folder for each dataset; the variable SFUMATO_DATA or the cache unless given.
        quiet: No progress bar.
    """
    command = again(fd, locals())
    print(f"sfumato fd {first} {second}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.cli.evaluate import score_table, words_of
    from sfumato.core.outside import allow_named
    from sfumato.core.writing import check_writable, replace_json
    from sfumato.evaluation.two_sets import compare_sets, open_set
    from sfumato.metrics.metric import expand, find_metric

    allow_named(extract or "", *words_of(metrics))
    names = expand(words_of(metrics))
    for name in names:
        if (metric := find_metric(name)).view != "features" or metric.own is not None:
            raise refusal(f"{name} is measured by `sfumato evaluate RUN` only.")
    for option, place, suffix in (("--save-stats", save_stats, ".npz"), ("--out", out, ".json")):
        if place is not None and Path(place).suffix != suffix:
            raise refusal(f"{option} is a {suffix} file; got {place}.")
        if place is not None:
            check_writable(Path(place))
    options = {name: value for name, value in {"weights": weights, "resize": resize}.items() if value is not None}
    found = compare_sets(
        open_set(first, data_root),
        open_set(second, data_root),
        extract=extract,
        options=options,
        metrics=names,
        save=None if save_stats is None else Path(save_stats),
        quiet=quiet,
    )
    tree: dict[str, Any] = {
        "run": Path(first).name,
        "recipe": None,
        "scores": [score.to_json() for score in found.scores],
        "refused": dict(found.refused),
        "provenance": {},
        "command": command,
    }
    if not found.scores:
        tree["plain"] = {"name": found.name, "value": found.plain, "n": found.n, "m": found.m, "flags": found.flags}
    if found.scores or found.refused:
        print(score_table([tree]))
    if not found.scores or "fd" in names:
        print(f"Plain {found.name} {found.plain:.6g} (n = {found.n:,}, m = {found.m or 'unknown'})")
    if found.equal_sets is not None:
        print(f"Two sets of one kind would give about {found.equal_sets:.3g} at these sizes (Gaussian features).")
    for flag in found.flags:
        print(f"* {flag}")
    if extract is None and found.name == "FD[random]":
        print("Features of a seeded random network; --extract inception --weights PATH gives FID.")
    if out is not None:
        replace_json(Path(out), tree)
        print(f"Written to {out}")
    return 0
