"""A trainer holds everything that a run's next step depends on, and takes that step.

A step takes positions p .. p + batch, in rounds of `micro` images whose gradients add up: the batch is part of the
recipe and never an accident of the machine. Then the gradient norm is checked and clipped, the learning rate set, the
optimisers and the averages moved. A step that is not finite changes nothing.

On one CPU that is all, and `Trainer.advance` reads from top to bottom. What other machines need stands elsewhere and is
not entered on one CPU:

    several processes     which share of the batch is whose, and what all agree on     `processes.ranks`, `replicas`
    weights in pieces     train.shard=true                                             `shards`
    a GPU                 the device settles whether a step is taken                   `deferred`
    short memory          smaller rounds                                               `fit_memory`
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from sfumato.core import noise
from sfumato.core.condition import Condition, Label
from sfumato.core.level import Level
from sfumato.data.augment import edm_augment
from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream
from sfumato.networks._named import factors_of_rates, frozen_weights
from sfumato.objectives import Loss
from sfumato.processes.machine import free_memory
from sfumato.processes.ranks import Ranks
from sfumato.runs import checkpoint
from sfumato.runs.conditions import told
from sfumato.runs.part import option
from sfumato.runs.plan import Plan, make
from sfumato.training import fit_memory
from sfumato.training.deferred import Deferred, can_wait
from sfumato.training.ema import Averages
from sfumato.training.latents import Encoded, batches_of
from sfumato.training.log_bins import LogBins
from sfumato.training.replicas import Copies, quiet, running_statistics, set_back
from sfumato.training.steps import Steps, all_finite, load_optimizer, optimizer_tensors, scale_rates, set_rates


@runtime_checkable
class Memory(Protocol):
    """A draw that remembers losses: it says the weight that its probabilities call for, and is saved with the run."""

    def weight(self, level: Level) -> Tensor:
        """Return the factor of each loss (B,) that leaves the expected loss as under a uniform draw."""
        ...

    def update(self, level: Level, loss: Tensor) -> None:
        """Remember the unweighted losses (B,) of a step."""
        ...

    def state(self) -> dict[str, Tensor]:
        """Return what is remembered, for a checkpoint."""
        ...

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state` returned."""
        ...


@contextlib.contextmanager
def seeded(seed: int, position: int, device: torch.device) -> Iterator[None]:
    """Address torch's own generator (dropout) by (seed, position) inside the block; leave it as it was."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(int(noise.words([position], 1, seed=seed, purpose="dropout")))
        yield


class Trainer(Steps):
    """Hold everything that a run's next step depends on.

    Arguments:
        plan: The plan of the resolved recipe to train.
        data: Images of the training split, or their latents.
        device: Device to train on.
        ranks: The processes that train together; one unless given.
    """

    def __init__(
        self, plan: Plan, data: Dataset | Stream | Encoded, device: torch.device, ranks: Ranks = Ranks()
    ) -> None:
        super().__init__(plan, device, ranks)
        recipe = plan.recipe
        self.network: nn.Module = plan.build_network(device)
        self.model = plan.model(self.network)
        self.objective = plan.objective(device)
        self.rate = plan.rate
        draw = plan.draw if "draw" in plan.reads else None
        self.memory = draw if isinstance(draw, Memory) else None
        self.trained = self.network  # with what the objective has learned numbers of, if any
        if isinstance(self.objective, nn.Module):
            self.trained = nn.ModuleList((self.network, self.objective))
        for name in frozen_weights(self.network, recipe.train.freeze):
            self.network.get_parameter(name).requires_grad_(False)
        self.weights = Copies(ranks)
        if recipe.train.shard and ranks.world > 1:
            from sfumato.training.shards import Shards  # what it imports takes a second

            self.weights = Shards(ranks, device, lambda: plan.build_network(device))
        self.weights.divide([m for m in (self.network, self.objective) if isinstance(m, nn.Module)])
        self.statistics = running_statistics(self.network)
        if fit_memory.compiles(plan, device, ranks.world):
            fit_memory.compile_network(self.network, recipe)
        self.replicas = None if ranks.world == 1 else self.weights.step(self.model, self.objective)
        self.rounds = ranks.rounds(0, recipe.train.batch, recipe.train.micro)  # of a step: (first place, images)
        # ranks must cut alike, so several stop instead; pairs of a coupling belong to the whole batch
        self.may_cut = ranks.world == 1 and option(recipe.objective, "coupling") != "ot"
        if self.may_cut:
            size, free = self.rounds[0][1], free_memory(device)
            held = data.images.numel() if isinstance(data, Dataset) else 0
            self.rounds = ranks.rounds(0, recipe.train.batch, fit_memory.fitting(plan, device, size, held, free))
        self.loader = batches_of(recipe, data, device)
        self.optimizers: list[Optimizer] = make(recipe.train.optimizer, {"network": self.trained})
        if ranks.world > 1:
            self.weights.check(self.optimizers)
        if recipe.train.rate_factors:
            factors = factors_of_rates(self.network, recipe.train.rate_factors)
            scale_rates(self.optimizers, {id(self.network.get_parameter(name)): f for name, f in factors.items()})
        self.averages = Averages(self.network, recipe.ema, self.weights)
        # a draw that remembers losses must know at once
        waits = self.memory is None and can_wait(device, self.optimizers)
        self.deferred = Deferred(self.watch, self.optimizers) if waits else None
        self.log = LogBins(device)

    def advance(self, spent: float) -> bool:
        """Take one step; return whether it was finite, hence taken.

        On a GPU the answer is that of the last step of which the host knows, the one before.
        """
        samples = range(self.seen, self.seen + self.recipe.train.batch)
        self.trained.train()
        before = [statistic.clone() for statistic in self.statistics]
        losses = self._gradients(samples, before)
        each = torch.cat([loss.each.detach() for loss in losses])
        norm, finite = self._clipped(each)
        self.seen, self.step = samples.stop, self.step + 1
        set_rates(self.optimizers, self.rate(samples.start, spent))
        if self.deferred is not None:
            self.deferred.keep_if(finite, self.statistics, before)
            return self.deferred.take(
                finite, self.step, samples, lambda: self._move(losses, each, norm, finite), self.log.take_back
            )
        good = bool(finite) and bool(self._move(losses, each, norm)[1])
        if not good:
            self._undo(before)
        self.watch.record(good, self.step, samples)
        return good

    def _gradients(self, samples: range, before: list[Tensor]) -> list[Loss]:
        """Add up the gradients of a step in rounds, smaller ones if memory is short; return the losses of the rounds.

        Arguments:
            samples: Positions of the step, over all ranks.
            before: Running statistics of BatchNorm before the step.
        """
        while True:
            try:
                last = self.rounds[-1][0]
                return [self._round(samples.start + place, n, last=place == last) for place, n in self.rounds]
            except (RuntimeError, MemoryError) as error:
                micro = fit_memory.halved(error, self.rounds[0][1], self.may_cut)
            self._undo(before)
            fit_memory.release(self.device)
            self.rounds = self.ranks.rounds(0, len(samples), micro)

    def _round(self, start: int, count: int, last: bool) -> Loss:
        """Add the gradients of `count` positions from `start` on to those of the step; return their losses."""
        batch = self._examples(start, count)
        with contextlib.nullcontext() if self.replicas is None else quiet(self.replicas, last):
            with seeded(self.recipe.train.seed, start, self.device):
                loss = self.replicas(self.objective, *batch) if self.replicas else self.objective(self.model, *batch)
            (self._weighted(loss).sum() * (self.ranks.world / self.recipe.train.batch)).backward()
        return loss

    def _examples(self, start: int, count: int) -> tuple[Tensor, Label | None, Tensor, Tensor | None]:
        """Return images, what each is told, positions and augmentation labels of a range of positions."""
        x0, label, positions = self.loader.batch(start, count)
        if isinstance(label, Condition):
            label = told(self.recipe, label)
        elif not self.recipe.data.labels:
            label = None
        if not self.recipe.data.augment:
            return x0, label, positions, None
        x0, augment = edm_augment(x0, positions, seed=self.recipe.train.seed, p=self.recipe.data.augment)
        return x0, label, positions, augment

    def _weighted(self, loss: Loss) -> Tensor:
        """Return the loss to minimise per image: weighted where the draw is not uniform."""
        return loss.each if self.memory is None else loss.each * self.memory.weight(loss.level).to(loss.each)

    def _clipped(self, each: Tensor) -> tuple[Tensor, Tensor]:
        """Clip the gradients; return their norm (), and whether it and the losses `each` are finite, a bool ()."""
        clip = self.recipe.train.clip
        norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), float("inf") if clip is None else clip)
        if self.ranks.world > 1:
            return self.weights.agreed(norm, each, self.statistics)
        return norm, torch.isfinite(norm) & torch.isfinite(each).all()

    def _move(
        self, losses: list[Loss], each: Tensor, norm: Tensor, finite: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Move the weights by a step, and if they stay finite the averages and the log.

        Arguments:
            losses: Of the rounds.
            each: Their losses per image (B,).
            norm: Gradient norm ().
            finite: Whether to move at all, a bool () on the device; None if the host knows that it was finite.

        Returns:
            The ln SNR (B,) that its losses were taken at, and whether the step was taken, a bool () on the device.
        """
        for optimizer in self.optimizers:
            optimizer.step()
        level = Level(torch.cat([v.level.alpha for v in losses]), torch.cat([v.level.sigma for v in losses]))
        good = self._sound()
        if finite is not None:
            finite = good = finite & good
        elif not good:
            return level.log_snr, good
        self.averages.update(self.network, self.seen, self.recipe.train.batch, finite)
        weighted = torch.cat([self._weighted(loss).detach() for loss in losses])
        parts = {name: torch.cat([loss.parts[name] for loss in losses]) for name in losses[0].parts}
        self.log.add(each, level.log_snr, norm, weighted=weighted, parts=parts, good=finite)
        if self.memory is not None:  # every rank remembers the losses of all
            alpha, sigma = self.ranks.in_order(level.alpha), self.ranks.in_order(level.sigma)
            self.memory.update(Level(alpha, sigma), self.ranks.in_order(each))
        self._forget()
        return level.log_snr, good

    def _sound(self) -> Tensor:
        """Return whether the weights are finite on all ranks, a bool () on the device."""
        if self.ranks.world == 1:
            return all_finite(self.trained.parameters())
        return self.ranks.everywhere(all_finite(map(self.weights.own, self.trained.parameters())))

    def _undo(self, before: list[Tensor]) -> None:
        """Forget the gradients, and set the running statistics of BatchNorm back."""
        self._forget()
        set_back(self.statistics, before)

    def _forget(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def record(self, now: float, spent: float) -> dict[str, Any]:
        """Return the first rank's log record of everything since the last one; `now` in seconds of this process.

        All ranks call it, since it adds up what they saw.
        """
        if self.deferred is not None:
            self.deferred.settle()
        self.ranks.sum_to_first(self.log.summed())
        return {
            "step": self.step,
            "images": self.seen,
            **self.log.take(),
            "lr": self.optimizers[0].param_groups[0]["lr"],
            "skipped": self.watch.total,
            "seconds": round(self.elapsed + now, 2),
            "spent": round(spent, 6),
        }

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of the state, grouped by file, on the first rank; all ranks call it."""
        if self.deferred is not None:
            self.deferred.settle()
        self.ranks.sum_to_first(self.log.summed())
        groups = {"network": dict(self.network.state_dict()), **self.averages.tensors()}
        groups |= {f"optimizer-{i}": optimizer_tensors(o) for i, o in enumerate(self.optimizers)}
        groups["tally"] = self.log.tensors()
        if self.memory is not None:
            groups["draw"] = self.memory.state()
        if isinstance(self.objective, nn.Module):
            groups["objective"] = dict(self.objective.state_dict())
        return self.weights.gathered(groups)

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Take over the state of a checkpoint; what it does not have starts anew (`start_from.resume`)."""
        if self.deferred is not None:
            self.deferred.forget()
        self._load(self.network, saved.tensors["network"])
        self.averages.load(saved.tensors)
        for i, optimizer in enumerate(self.optimizers):
            load_optimizer(optimizer, saved.tensors.get(f"optimizer-{i}", {}), self.weights.divided)
        self.log.load(saved.tensors["tally"])
        for value in self.log.summed().values():
            value *= self.ranks.first
        if self.memory is not None and "draw" in saved.tensors:
            self.memory.load(saved.tensors["draw"])
        if isinstance(self.objective, nn.Module) and "objective" in saved.tensors:
            self._load(self.objective, saved.tensors["objective"])
        self.take_counts(saved.state)

    def _load(self, module: nn.Module, saved: Mapping[str, Tensor]) -> None:
        state = module.state_dict()
        module.load_state_dict({name: self.weights.divided(value, state[name]) for name, value in saved.items()})
