"""What a run logs: sums since the last record, by noise level, kept on the device and saved with the run.

The loss and the parts an objective names (the terms of a hybrid loss, a classifier's accuracy) are averaged in bins of
ln SNR; an average over everything hides that levels differ by orders of magnitude. Where a draw is not uniform its
weight is in the total, not in the bins, which are means over images of one level either way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

BIN_EDGES = tuple(range(-12, 13, 2))  # of ln SNR
BINS = len(BIN_EDGES) + 1
PART = "part."


def mean(total: Tensor, count: Tensor) -> float | None:
    """Return a sum () divided by a count () on the CPU; None if the count is 0 or the sum has overflown."""
    value = float(total.cpu() / count) if count else math.nan
    return value if math.isfinite(value) else None


class LogBins:
    """Sums since the last log record: loss and parts by noise level, gradient norm. Saved, so that logs resume exactly.

    Arguments:
        device: Where losses are.
    """

    def __init__(self, device: torch.device) -> None:
        self.edges = torch.tensor(BIN_EDGES, dtype=torch.float64)
        self.device = device
        self.sum, self.count = torch.zeros(BINS, device=device), torch.zeros(BINS)
        self.total, self.norm = torch.zeros((), device=device), torch.zeros((), device=device)
        self.steps = torch.zeros(())
        self.parts: dict[str, Tensor] = {}

    def add(
        self,
        each: Tensor,
        log_snr: Tensor,
        norm: Tensor,
        *,
        weighted: Tensor | None = None,
        parts: Mapping[str, Tensor] | None = None,
        good: Tensor | None = None,
    ) -> None:
        """Add one step.

        Arguments:
            each: Loss per image (B,).
            log_snr: Where each was taken, (B,), on the CPU.
            norm: Gradient norm ().
            weighted: The loss that was minimised (B,), if a draw weighs it; None for `each`.
            parts: Further numbers per image (B,).
            good: Whether the step was taken, a bool () on the device; None if it is known that it was. One that was
                not adds zeros to the sums, and `take_back` corrects the counts when the host knows.
        """

        def counted(value: Tensor) -> Tensor:
            return value.float() if good is None else torch.where(good, value.float(), 0.0)

        where = torch.bucketize(log_snr, self.edges)
        there = where.to(self.device, non_blocking=True)
        self.sum.index_add_(0, there, counted(each))
        self.total += counted(each if weighted is None else weighted).sum()
        for name, values in (parts or {}).items():
            self.parts.setdefault(name, torch.zeros(BINS, device=self.device)).index_add_(0, there, counted(values))
        self.count += torch.bincount(where, minlength=BINS)
        self.norm += counted(norm)
        self.steps += 1

    def take_back(self, log_snr: Tensor) -> None:
        """Take back the counts of a step whose sums were zeros.

        Arguments:
            log_snr: As it was added, (B,).
        """
        self.count -= torch.bincount(torch.bucketize(log_snr, self.edges), minlength=BINS)
        self.steps -= 1

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums by name; they are the live tensors."""
        own = {"sum": self.sum, "count": self.count, "total": self.total, "norm": self.norm, "steps": self.steps}
        return own | {PART + name: value for name, value in self.parts.items()}

    def summed(self) -> dict[str, Tensor]:
        """Return the live tensors that add up over ranks: those of images; gradient norm and steps are of all."""
        return {name: value for name, value in self.tensors().items() if name not in ("norm", "steps")}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Take over saved sums; those of older runs have no total of their own."""
        self.parts = {
            name.removeprefix(PART): torch.zeros(BINS, device=self.device) for name in saved if name.startswith(PART)
        }
        known = {"total": saved["sum"].sum(), **saved}
        for name, value in self.tensors().items():
            value.copy_(known[name])

    def take(self) -> dict[str, Any]:
        """Return the means and start anew; a mean of nothing, where every step was skipped, is None."""
        seen = self.count.sum()
        means: dict[str, Any] = {
            "loss": mean(self.total, seen),
            "loss_by_log_snr": self._by_bin(self.sum),
            "grad_norm": mean(self.norm, self.steps),
        }
        for name, value in self.parts.items():
            means |= {name: mean(value.sum(), seen), f"{name}_by_log_snr": self._by_bin(value)}
        for value in self.tensors().values():
            value.zero_()
        return means

    def _by_bin(self, total: Tensor) -> list[float | None]:
        return [mean(s, c) for s, c in zip(total.cpu(), self.count)]
