"""Write what the tests prove as pages: golden numbers (parity.md), laws (laws.md), restoration (restoration.md).

    python -m pytest -p tests.evidence --evidence docs/results tests/parity tests/laws        (make evidence)

A parity test hands over every relative error that it asserted about and the tolerance it was held to
(`tests/parity/measured.py`); a law is a test of tests/laws with the first line of its docstring, and a law that
measures how far a method of restoration is from the truth hands over the row of its table. Nothing is written by hand
but the table of what each group of cases was made by, `MADE_BY`; a group that is missing there is an error.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from sfumato.report.table import Row, markdown_table

GUIDED = "openai/guided-diffusion 22e0df8"
EDM = "NVlabs/edm 008a4e5"
KDIFFUSION, DIFFUSERS = "k-diffusion 0.1.1.post1", "diffusers 0.42.1"
MADE_BY: dict[str, str] = {
    "test_discrete": GUIDED,
    "test_edm": EDM,
    "test_networks": "guided-diffusion, NVlabs/edm, pesser/pytorch_diffusion, diffusers (see the name of the case)",
    "test_solvers::test_k_diffusion": KDIFFUSION,
    "test_solvers::test_diffusers": DIFFUSERS,
    "test_solvers::test_pndm": DIFFUSERS,
    "test_solvers::test_dpm_solver": "LuChengTHU/dpm-solver 52bc3fb",
    "test_solvers::test_grids": KDIFFUSION,
    "test_solvers::test_denoisers": "closed form",
    "test_solvers::test_closed_form_endpoint": "closed form; DOP853 at 1e-13",
    "test_metrics::test_frechet": "pytorch-fid 0.3.0; mpmath 1.3.0, 50 digits",
    "test_metrics::test_kernel": "torch-fidelity 0.4.0",
    "test_metrics::test_the_inception_network": "torch-fidelity 0.4.0",
    "test_metrics::test_the_resize": "torch-fidelity 0.4.0 (TensorFlow 1 bilinear)",
    "test_metrics::test_precision_recall": f"{GUIDED} (evaluator); prdc 0.2",
    "test_metrics::test_the_inception_score": f"{GUIDED} (evaluator); torch-fidelity 0.4.0",
    "test_likelihood::test_likelihood_along": "yang-song/score_sde_pytorch cb1f359; closed form",
    "test_likelihood": GUIDED,
    "test_jit": "LTH14/JiT 869190a",
}


@dataclass(frozen=True)
class Proof:
    """One test that ran.

    Attributes:
        group: Its file's stem and its function, "test_edm::test_loss".
        case: Its parameters as text, "" if it has none.
        says: First line of its docstring, or its name in words.
        outcome: "passed", "failed" or "skipped".
        comparisons: (relative error, tolerance) of every golden array or number it asserted about.
        row: Of the table of restoration, or None.
    """

    group: str
    case: str
    says: str
    outcome: str
    comparisons: tuple[tuple[float, float], ...]
    row: Row | None = None

    @property
    def worst(self) -> tuple[float, float]:
        """The comparison that came closest to its tolerance."""
        return max(self.comparisons, key=lambda pair: (pair[0] / pair[1] if pair[1] else pair[0], pair))


def made_by(group: str) -> str:
    """Return the implementation that made a group's golden numbers.

    Raises:
        ValueError: If `MADE_BY` does not say.
    """
    known = [prefix for prefix in MADE_BY if group.startswith(prefix)]
    if not known:
        raise ValueError(f"Add the implementation that made the golden numbers of {group} to MADE_BY in {__file__}.")
    return MADE_BY[max(known, key=len)]


def _words(name: str) -> str:
    return name.removeprefix("test_").replace("_", " ").capitalize()


def _grouped(proofs: Iterable[Proof]) -> list[tuple[str, list[Proof]]]:
    ordered = sorted(proofs, key=lambda proof: (proof.group, proof.case))
    return [(key, list(members)) for key, members in itertools.groupby(ordered, key=lambda proof: proof.group)]


def _result(proofs: Sequence[Proof]) -> str:
    """Say how many of the cases passed, or that all did."""
    passed = sum(proof.outcome == "passed" for proof in proofs)
    return "holds" if passed == len(proofs) else f"**{passed} of {len(proofs)} hold**"


def _numbers(comparisons: Sequence[tuple[float, float]]) -> Row:
    tolerances = sorted({tolerance for _, tolerance in comparisons})
    return {
        "arrays": len(comparisons),
        "largest relative error": f"{max(error for error, _ in comparisons):.1e}",
        "tolerance": ", ".join(f"{t:.0e}" if t else "exact" for t in tolerances),
    }


def parity_page(proofs: Sequence[Proof]) -> str:
    """Write the page of golden numbers: a summary by group, then every case.

    Arguments:
        proofs: Of tests/parity; those that compared nothing are left out.
    """
    measured = [proof for proof in proofs if proof.comparisons]
    groups = _grouped(measured)
    total = sum(len(proof.comparisons) for proof in measured)
    summary: list[Row] = []
    parts = []
    for group, members in groups:
        seen = [pair for proof in members for pair in proof.comparisons]
        name = group.replace("::test_", ": ").removeprefix("test_").replace("_", " ")
        summary.append(
            {
                "what": name,
                "made by": made_by(group),
                "cases": len(members),
                **_numbers(seen),
                "result": _result(members),
            }
        )
        rows = [
            {"case": f"`{proof.case or '-'}`", **_numbers(proof.comparisons), "result": _result([proof])}
            for proof in members
        ]
        parts += [f"### {name}", f"{members[0].says.rstrip('.')}. Made by {made_by(group)}.", markdown_table(rows)]
    return (
        "\n\n".join(
            [
                "# Golden numbers",
                "Written by `make evidence`; how each fixture was made is in the tests. Our code ran on the inputs of "
                "the official implementations, and every output was compared with theirs. The relative error "
                "is max |ours - theirs| / max |theirs| over an array, the number quoted is the largest of the group, "
                "and a tolerance is what the test asserts. Rounding differs between machines, so the last digits of "
                "an error may.",
                f"{len(measured)} cases, {total:,} comparisons of arrays or numbers.",
                "## Summary",
                markdown_table(summary),
                "## Every case",
                *parts,
            ]
        )
        + "\n"
    )


def laws_page(proofs: Sequence[Proof]) -> str:
    """Write the page of laws: by file, each law with what it says, its cases and the result.

    Arguments:
        proofs: Of tests/laws.
    """
    parts = []
    for file, members in itertools.groupby(_grouped(proofs), key=lambda group: group[0].split("::")[0]):
        rows: list[Row] = [
            {
                "law": f"`{group.split('::')[1].removeprefix('test_')}`",
                "says": cases[0].says,
                "cases": len(cases),
                "result": _result(cases),
            }
            for group, cases in members
        ]
        parts += [f"## {_words(file)}", markdown_table(rows)]
    count = len({proof.group for proof in proofs})
    return (
        "\n\n".join(
            [
                "# Laws",
                "Written by `make evidence`. A law is a theorem about several packages, run as a test over every "
                "case it speaks of: equal methods, exact ends, orders of convergence, invariances.",
                f"{count} laws, {len(proofs)} cases.",
                *parts,
            ]
        )
        + "\n"
    )


def restoration_page(proofs: Sequence[Proof]) -> str:
    """Write the page of restoration: every method's errors against the truth, task by task.

    Arguments:
        proofs: Of tests/laws; those without a row are left out.
    """
    rows = [proof.row for proof in proofs if proof.row is not None]
    parts = []
    for task in dict.fromkeys(str(row["task"]) for row in rows):
        chosen = sorted((row for row in rows if row["task"] == task), key=lambda row: str(row["method"]))
        parts += [f"## {task}", markdown_table([{k: v for k, v in row.items() if k != "task"} for row in chosen])]
    return (
        "\n\n".join(
            [
                "# Restoration against truth",
                "Written by `make evidence`. A cell is the error of the mean, in standard deviations of the posterior, "
                "and the relative error of the covariance (Frobenius norm), of what the ancestral sampler makes on "
                "Karras et al.'s levels with that number of steps; the last column is Heun's sampler with 100.",
                "The first tasks are on a Gaussian of six dimensions whose posterior is known in closed form; the walk "
                "is affine, so its mean and covariance are computed, not sampled. The plain sampler, with nothing to "
                "restore, has a covariance error of 0.405, 0.105 and 0.028 there. Moment matching is run with six "
                "iterations and no damping. The mixture has two modes; its posterior comes from 400,000 "
                "importance-weighted draws and each method from 4,000 samples, so about 0.02 of an error of the mean "
                "and 0.03 of the covariance is chance. There options are the defaults.",
                "What to read: moment matching is exact for a Gaussian, up to the steps of the sampler. PiGDM and DPS "
                "have the mean wrong where pixels are correlated, since they take them for independent; DDNM and "
                "replacement have mean and covariance wrong whatever the number of steps. Of two modes none is exact.",
                *parts,
            ]
        )
        + "\n"
    )


class Collector:
    """The plugin: gather proofs while the tests run, write the pages when they are done."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.proofs: dict[str, list[Proof]] = {"parity": [], "laws": []}
        self.says: dict[str, str] = {}
        self.outcomes: set[str] = set()  # of the phases of the test that runs now

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            doc = inspect.getdoc(getattr(item, "function", None)) or _words(item.name.split("[")[0]) + "."
            self.says[item.nodeid] = doc.splitlines()[0]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.outcomes.add(report.outcome)
        if report.when != "teardown":  # properties of fixtures are complete then
            return
        outcomes, self.outcomes = self.outcomes, set()
        room = Path(report.nodeid.split("::")[0]).parent.name
        if room not in self.proofs:
            return
        file, _, rest = report.nodeid.partition("::")
        function, _, case = rest.partition("[")
        properties: dict[str, Any] = dict(report.user_properties)
        self.proofs[room].append(
            Proof(
                group=f"{Path(file).stem}::{function}",
                case=case.removesuffix("]"),
                says=self.says[report.nodeid],
                outcome=next((o for o in ("failed", "skipped") if o in outcomes), "passed"),
                comparisons=tuple(tuple(pair) for pair in properties.get("comparisons", ())),
                row=properties.get("restoration"),
            )
        )

    def pytest_sessionfinish(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        for room, page in (("parity", parity_page), ("laws", laws_page)):
            if self.proofs[room]:
                (self.folder / f"{room}.md").write_text(page(self.proofs[room]))
        if any(proof.row for proof in self.proofs["laws"]):
            (self.folder / "restoration.md").write_text(restoration_page(self.proofs["laws"]))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--evidence", type=Path, metavar="DIR", help="write the pages of this run to DIR")


def pytest_configure(config: pytest.Config) -> None:
    if (folder := config.getoption("--evidence")) is not None:
        config.pluginmanager.register(Collector(folder), "evidence")
