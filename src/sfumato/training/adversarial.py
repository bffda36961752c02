"""The trainer of a generator and its discriminator: two optimisers, one step of each side per batch.

    1. real images of positions p .. p + batch and as many made ones, of the same labels
    2. one step of D on both, G held fixed
    3. one step of G against the D of step 2, on the same made images; of every k-th batch, if the objective says so

A half whose loss or gradient is not finite changes nothing, and a step with such a half moves neither the averages nor
the running statistics of BatchNorm; G's half is left out if D's fails. BatchNorm sees the whole batch at once, so a
batch is never cut into pieces.

References:
    Goodfellow et al. Generative Adversarial Nets. 2014, algorithm 1. https://arxiv.org/abs/1406.2661
    Radford, Metz, Chintala. Unsupervised Representation Learning with DCGAN. 2016. https://arxiv.org/abs/1511.06434
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.objectives._latent import held
from sfumato.objectives.gan import Half
from sfumato.processes.ranks import Ranks
from sfumato.runs import checkpoint
from sfumato.runs.plan import Plan, make
from sfumato.training.ema import Averages
from sfumato.training.latents import Encoded, batches_of
from sfumato.training.log_bins import mean
from sfumato.training.replicas import running_statistics, set_back
from sfumato.training.steps import Steps, all_finite, load_optimizer, optimizer_tensors, set_rates

SIDES = ("generator", "discriminator")


class AdversarialTrainer(Steps):
    """Hold everything that the next step of a generator and its discriminator depends on.

    Arguments:
        plan: The plan of the resolved recipe to train.
        data: Images of the training split.
        device: Device to train on.
        ranks: One process: a batch is not shared (`loop.check_shared` refuses more).
    """

    def __init__(
        self, plan: Plan, data: Dataset | Stream | Encoded, device: torch.device, ranks: Ranks = Ranks()
    ) -> None:
        super().__init__(plan, device, ranks)
        recipe = plan.recipe
        self.network: nn.Module = plan.build_network(device)
        self.objective = plan.objective(device)
        self.every = getattr(self.objective, "every", 1)  # an objective from outside may know of no turns
        self.loader = batches_of(recipe, data, device)
        self.statistics = running_statistics(self.network)
        self.sides: dict[str, nn.Module] = {side: self.network.get_submodule(side) for side in SIDES}
        self.optimizers: dict[str, list[Optimizer]] = {
            side: make(recipe.train.optimizer, {"network": module}) for side, module in self.sides.items()
        }
        self.rate = plan.rate
        self.averages = Averages(self.network, recipe.ema)
        self.sums = Sums(device)

    def advance(self, spent: float) -> bool:
        """Take one step of each side; return whether both were finite, hence taken."""
        train = self.recipe.train
        x0, label, positions = self.loader.batch(self.seen, train.batch)
        label = label if self.recipe.data.labels else None
        z = self.network.latents(positions, seed=train.seed, device=self.device)  # type: ignore[operator]
        statistics = [statistic.clone() for statistic in self.statistics]
        factor = self.rate(self.seen, spent)
        self.network.train()
        with self._autocast():
            made = self.network(z, label)
            judged = self.objective.discriminator(self.network, x0, made.detach(), label, positions, spent)  # type: ignore[attr-defined]
        good = self._take("discriminator", judged, factor, {"loss": judged.each, **judged.parts})
        if good and (self.step + 1) % self.every == 0:
            with held(self.sides["discriminator"]):
                with self._autocast():
                    fooled = self.objective.generator(self.network, made, label, positions, spent)  # type: ignore[attr-defined]
                good = self._take("generator", fooled, factor, {"loss_generator": fooled.each})
        self.seen += train.batch
        self.step += 1
        self.watch.record(good, self.step, range(self.seen - train.batch, self.seen))
        if good:
            self.averages.update(self.network, self.seen, train.batch)
        else:
            set_back(self.statistics, statistics)
        return good

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        dtype = self.plan.precision.autocast
        return contextlib.nullcontext() if dtype is None else torch.autocast(self.device.type, dtype)

    def _take(self, side: str, half: Half, factor: float, logged: Mapping[str, Tensor]) -> bool:
        """Step one side down its loss if that is finite; return whether it was, and the weights are."""
        clip = self.recipe.train.clip
        parameters = list(self.sides[side].parameters())
        half.each.mean().backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, float("inf") if clip is None else clip)
        good = bool(torch.isfinite(norm) & torch.isfinite(half.each).all())
        if good:
            set_rates(self.optimizers[side], factor)
            for optimizer in self.optimizers[side]:
                optimizer.step()
            good = bool(all_finite(parameters))
        if good:
            which = "grad_norm" if side == "discriminator" else "grad_norm_generator"
            self.sums.add({name: value.detach().mean() for name, value in logged.items()} | {which: norm})
        self.network.zero_grad(set_to_none=True)
        return good

    def record(self, now: float, spent: float) -> dict[str, Any]:
        """Return a log record of everything since the last one; `now` in seconds of this process."""
        return {
            "step": self.step,
            "images": self.seen,
            **self.sums.take(),
            "lr": self.optimizers["generator"][0].param_groups[0]["lr"],
            "skipped": self.watch.total,
            "seconds": round(self.elapsed + now, 2),
            "spent": round(spent, 6),
        }

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of the state, grouped by file."""
        groups = {"network": dict(self.network.state_dict()), **self.averages.tensors()}
        for side, optimizers in self.optimizers.items():
            groups |= {f"optimizer-{side}-{i}": optimizer_tensors(o) for i, o in enumerate(optimizers)}
        return groups | {"sums": self.sums.tensors()}

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Take over the state of a checkpoint; what it does not have starts anew (`start_from.resume`)."""
        self.network.load_state_dict(saved.tensors["network"])
        self.averages.load(saved.tensors)
        for side, optimizers in self.optimizers.items():
            for i, optimizer in enumerate(optimizers):
                load_optimizer(optimizer, saved.tensors.get(f"optimizer-{side}-{i}", {}))
        self.sums.load(saved.tensors["sums"])
        self.take_counts(saved.state)


class Sums:
    """Means of named numbers since the last record, kept on the device and saved with the run.

    Arguments:
        device: Where the numbers are.
    """

    NAMES = ("loss", "loss_generator", "real", "fake", "grad_norm", "grad_norm_generator")

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(len(self.NAMES), device=device)
        self.counts = torch.zeros(len(self.NAMES))

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add numbers of a step, by name."""
        for name, value in values.items():
            self.sums[self.NAMES.index(name)] += value.float()
            self.counts[self.NAMES.index(name)] += 1

    def take(self) -> dict[str, float | None]:
        """Return the means by name and start anew; None where every step was skipped."""
        means = [mean(total, count) for total, count in zip(self.sums.cpu(), self.counts)]
        self.sums.zero_()
        self.counts.zero_()
        return dict(zip(self.NAMES, means))

    def tensors(self) -> dict[str, Tensor]:
        """Return the sums; they are the live tensors."""
        return {"sums": self.sums, "counts": self.counts}

    def load(self, saved: Mapping[str, Tensor]) -> None:
        """Take over saved sums."""
        self.sums.copy_(saved["sums"])
        self.counts.copy_(saved["counts"])
