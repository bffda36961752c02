"""Curves of training, from the records of metrics.jsonl (`results.read_metrics`).

A loss averaged over noise levels hides where a model learns, so `loss_by_level` splits it by ln SNR, in the bins
whose edges the loop uses; early and late training are lines of one plot.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter

from sfumato.report.plot import Series, axes, decades, figure_of, finish, lines, style
from sfumato.training.log_bins import BIN_EDGES

Record = Mapping[str, Any]


def training_curves(
    runs: Mapping[str, Sequence[Record]], alike: Mapping[str, str] | None = None, *, title: str = ""
) -> Figure:
    """Plot loss, gradient norm and learning rate against images seen.

    Arguments:
        runs: Run -> its records.
        alike: Run -> what is equal for runs of one recipe that differ in their seed alone; these are thin lines.
        title: Text above the plots.

    Raises:
        ValueError: If a run has no record.
    """
    _refuse_empty(runs)
    panels = (("loss", "training loss"), ("grad_norm", "gradient norm"), ("lr", "learning rate"))
    figure = figure_of(columns=3, width=3.9, height=3.4)
    for i, (key, label) in enumerate(panels):
        ax = figure.add_subplot(1, 3, i + 1)
        style(ax, "training images seen", label)
        series = {run: _series(rs, key) for run, rs in runs.items()}
        lines(ax, series, markers=False, alike=alike)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        if key == "lr":
            ax.set_ylim(bottom=0)
        elif all(y > 0 for s in series.values() for y in s.y):
            decades(ax)
    skipped = sum(int(records[-1].get("skipped", 0)) for records in runs.values())
    told = f"{skipped:,} steps were skipped, since their loss or gradient was not finite. " if skipped else ""
    return finish(figure, f"Means of the steps between two points. {told}".rstrip(), title)


def has_levels(records: Sequence[Record]) -> bool:
    """Return whether the loss of a training was taken at several noise levels: an autoencoder's is at none."""
    found = (i for r in records for i, loss in enumerate(r.get("loss_by_log_snr") or ()) if loss is not None)
    return len(set(found)) > 1


def loss_by_level(records: Sequence[Record], moments: int = 4, *, title: str = "") -> Figure:
    """Plot the loss against ln SNR at several moments of training.

    Arguments:
        records: Records of one run.
        moments: Lines, evenly through training; fewer if there are fewer records.
        title: Text above the plot.

    Raises:
        ValueError: If there is no record, or its bins are not the loop's.
    """
    _refuse_empty({"this run": records})
    step = (BIN_EDGES[-1] - BIN_EDGES[0]) / (len(BIN_EDGES) - 1)
    centres = [BIN_EDGES[0] - step / 2 + step * i for i in range(len(BIN_EDGES) + 1)]
    if any(len(r["loss_by_log_snr"]) != len(centres) for r in records):
        raise ValueError(f"Records of this version have {len(centres)} bins of ln SNR; these have another number.")
    last = len(records) - 1
    chosen = sorted({round(last * (i + 1) / moments) for i in range(moments)}) if moments > 1 else [last]
    series = {}
    for i in chosen:
        pairs = [(x, y) for x, y in zip(centres, records[i]["loss_by_log_snr"]) if y is not None]
        series[f"{records[i]['images']:,} images"] = Series.of([x for x, _ in pairs], [y for _, y in pairs])
    figure, ax = axes("ln SNR (left: noise, right: clean)", "training loss", title)
    lines(ax, series)
    if all(y > 0 for s in series.values() for y in s.y):
        decades(ax)
    return finish(
        figure,
        "Each line is a moment of training. SNR = (alpha / sigma)^2; means of bins, of which the outer ones are open.",
    )


def score_curves(runs: Mapping[str, Sequence[Record]], alike: Mapping[str, str] | None = None) -> Figure:
    """Plot the scores taken while training against images seen, with their 95% intervals.

    Arguments:
        runs: Run -> its records of scores.jsonl.
        alike: As for `training_curves`.

    Raises:
        ValueError: If a run has no score, or runs were judged by different protocols.
    """
    _refuse_empty(runs)
    kinds = {(r["name"], r["n"], r["protocol"]) for records in runs.values() for r in records}
    if len(kinds) > 1:
        listed = "; ".join(f"{name}, n = {n}, protocol {protocol}" for name, n, protocol in sorted(kinds))
        raise ValueError(f"Scores of different protocols do not share an axis: {listed}. Plot one run at a time.")
    name, n, _ = next(iter(kinds))
    figure, ax = axes("training images seen", name)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    series = {
        run: Series.of([r["images"] for r in rs], [r["value"] for r in rs], *zip(*(r["interval"] for r in rs)))
        for run, rs in runs.items()
    }
    lines(ax, series, alike=alike)
    return finish(figure, f"Averaged weights, the same {n:,} seeds each time; bars: 95% intervals.")


def adversarial_curves(records: Sequence[Record], *, title: str = "") -> Figure:
    """Plot a GAN's two losses, and what its discriminator believes, against images seen.

    Arguments:
        records: Records of one run that trained a generator.
        title: Text above the plots.

    Raises:
        ValueError: If there is no record.
    """
    _refuse_empty({"this run": records})
    panels = {
        "loss": {"discriminator": "loss", "generator": "loss_generator"},
        "belief that an image is real": {"real images": "real", "made images": "fake"},
    }
    figure = figure_of(columns=2, width=3.9, height=3.4)
    for i, (label, keys) in enumerate(panels.items()):
        ax = figure.add_subplot(1, 2, i + 1)
        style(ax, "training images seen", label)
        lines(ax, {name: _series(records, key) for name, key in keys.items()}, markers=False)
        ax.xaxis.set_major_formatter(EngFormatter(sep=""))
        ax.set_ylim(bottom=0)
    return finish(figure, "Where D cannot tell, its loss is 1.386 and it believes 0.5.", title)


def of_last_protocol(records: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the scores of the protocol and sampling that a run was judged by last: others share no axis with them.

    Arguments:
        records: Records of scores.jsonl.
    """
    kinds = [(record["protocol"], record.get("settings")) for record in records]
    return [record for record, kind in zip(records, kinds) if kind == kinds[-1]]


def term_curves(records: Sequence[Record], *, title: str = "") -> Figure:
    """Plot the terms that a loss is the sum of against images seen.

    Arguments:
        records: Records of one run whose objective names its terms.
        title: Text above the plot.

    Raises:
        ValueError: If there is no record.
    """
    _refuse_empty({"this run": records})
    suffix = "_by_log_snr"
    names = [key.removesuffix(suffix) for key in records[0] if key.endswith(suffix)]
    figure, ax = axes("training images seen", "nats per number of the image", title)
    lines(ax, {name.replace("_", " "): _series(records, name) for name in names}, markers=False)
    ax.xaxis.set_major_formatter(EngFormatter(sep=""))
    return finish(figure, "Terms as they are, before a weight that rises over the first images.")


def records_csv(records: Sequence[Record]) -> str:
    """Return records as CSV, one line each: the numbers that are not lists.

    Arguments:
        records: Records of one run.
    """
    names = [name for name, value in records[0].items() if not isinstance(value, list)] if records else []
    rows = [",".join(names), *(",".join(str(r.get(name, "")) for name in names) for r in records)]
    return "\n".join(rows) + "\n"


def _series(records: Sequence[Record], key: str) -> Series:
    """Return a number of records against images seen, where it is known: not where every step was skipped."""
    known = [r for r in records if r.get(key) is not None]
    return Series.of([r["images"] for r in known], [r[key] for r in known])


def _refuse_empty(runs: Mapping[str, Sequence[Record]]) -> None:
    for name, records in runs.items():
        if not records:
            raise ValueError(f"{name} has no record in metrics.jsonl yet. Train it for one log interval.")
