"""A trainer holds everything that a run's next step depends on, and takes that step.

A step takes positions p .. p + batch, in rounds of `micro` images whose gradients add up: the batch is part of the
recipe and never an accident of the machine. Several ranks divide it among them (`processes.ranks`). Then the
gradient norm is checked and clipped, the learning rate set, the optimisers and the averages moved. A step that is not
finite changes nothing (`training.guard`); on a GPU the host learns of it one step later (`training.deferred`).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from sfumato.core import noise
from sfumato.core.level import Level
from sfumato.data.augment import edm_augment
from sfumato.data.dataset import Dataset
from sfumato.data.streaming import Stream, loader_for
from sfumato.objectives import Loss
from sfumato.processes.ranks import Ranks
from sfumato.runs import checkpoint
from sfumato.runs.assemble import make, option
from sfumato.runs.plan import Plan
from sfumato.training.deferred import Question, asked, can_wait, step_if
from sfumato.training.ema import Averages
from sfumato.training.fit_memory import compile_network, compiles, fitting
from sfumato.training.guard import FiniteWatch
from sfumato.training.log_bins import Tally
from sfumato.training.optimizer_state import Rates, load_optimizer, optimizer_tensors, share_spent
from sfumato.training.replicas import Copies, quiet, running_statistics, set_back


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


class Trainer:
    """Hold everything that a run's next step depends on.

    Arguments:
        plan: Of the resolved recipe.
        data: The training split.
        device: Where to train.
        ranks: The processes that train together; one unless given.
    """

    def __init__(self, plan: Plan, data: Dataset | Stream, device: torch.device, ranks: Ranks = Ranks()) -> None:
        recipe = plan.recipe
        self.recipe, self.device, self.ranks = recipe, device, ranks
        self.network: nn.Module = plan.build_network(device)
        self.model = plan.model(self.network)
        draw = plan.draw if "draw" in plan.reads else None
        self.memory = draw if isinstance(draw, Memory) else None
        self.objective = plan.objective(device)
        self.trained = self.network  # with what the objective has learned numbers of, if any
        if isinstance(self.objective, nn.Module):
            self.trained = nn.ModuleList((self.network, self.objective))
        self.weights = _weights(plan, ranks, device)
        self.weights.divide([m for m in (self.network, self.objective) if isinstance(m, nn.Module)])
        if compiles(plan, device, ranks.world):
            compile_network(self.network, recipe)
        self.micro = recipe.train.micro
        self.replicas = self.weights.step(self.model, self.objective)
        self.statistics = running_statistics(self.network)
        self.loader = loader_for(data, recipe.train.seed, device, flip=recipe.data.flip, workers=recipe.data.workers)
        self.optimizers: list[Optimizer] = make(recipe.train.optimizer, {"network": self.trained})
        self.weights.check(self.optimizers)
        # a draw that remembers losses must know at once
        self.late = self.memory is None and can_wait(device, self.optimizers)
        self.open: Question | None = None
        self.rates = Rates(self.optimizers)
        self.rate = plan.rate
        self.averages = Averages(self.network, recipe.ema, self.weights)
        self.watch = FiniteWatch(recipe.train.bad_in_a_row)
        self.tally = Tally(device)
        self.seen = 0  # images, counting skipped steps: the position of the next sample
        self.step = 0
        self.elapsed = 0.0  # seconds of training before this process

    def spent(self, now: float) -> float:
        """Return the share of the budget spent after `now` seconds of training in this process."""
        return share_spent(self.recipe.train, self.seen, self.elapsed + now)

    def advance(self, spent: float) -> bool:
        """Take one step; return whether it was finite, hence taken.

        A late trainer answers for the last step that it knows of, the one before.
        """
        batch = self.recipe.train.batch
        self.trained.train()
        statistics = [statistic.clone() for statistic in self.statistics]
        taken, self.micro = fitting(
            self._gradients,
            self.micro,
            -(-batch // self.ranks.world),
            # ranks must cut alike, so several stop instead; pairs of a coupling belong to the whole batch
            may_cut=self.ranks.world == 1 and option(self.recipe.objective, "coupling") != "ot",
            undo=lambda: self._undo(statistics),
            tell=tqdm.write,
        )
        clip = self.recipe.train.clip
        norm = torch.nn.utils.clip_grad_norm_(self.trained.parameters(), float("inf") if clip is None else clip)
        norm = self.weights.whole(norm)
        each = torch.cat([loss.each.detach() for loss in taken])
        good = self.ranks.everywhere(torch.isfinite(norm) & torch.isfinite(each).all())
        samples = range(self.seen, self.seen + batch)
        self.seen += batch
        self.step += 1
        factor = self.rate(samples.start, spent)
        if self.late:
            self.rates.set(factor)
            return self._move_late(good, samples, taken, each, norm, statistics)
        known = bool(good)
        self.watch.record(known, self.step, samples)
        if known:
            self.rates.set(factor)
            for optimizer in self.optimizers:
                optimizer.step()
            self._average_statistics()
            self.averages.update(self.network, self.seen, batch)
            self._note(taken, each, norm)
            self._forget()
        else:
            self._undo(statistics)
        return known

    def _move_late(
        self, good: Tensor, samples: range, taken: list[Loss], each: Tensor, norm: Tensor, statistics: list[Tensor]
    ) -> bool:
        """Step or skip as the device finds, and return whether the last step that is known of was taken."""
        step_if(good, self.optimizers)
        self._average_statistics()
        set_back(self.statistics, [torch.where(good, now, old) for now, old in zip(self.statistics, statistics)])
        self.averages.update(self.network, self.seen, len(samples), good)
        log_snr = self._note(taken, each, norm, good)
        self._forget()
        self._settle()
        self.open = asked(self.step, samples, good, lambda: self.tally.take_back(log_snr))
        return self.watch.run == 0

    def _settle(self) -> None:
        """Learn whether the last step was taken, if that is open, and count it."""
        question, self.open = self.open, None
        if question is None:
            return
        question.arrived()
        good = bool(question.good)
        if not good:
            question.taken_back()
        self.watch.record(good, question.step, question.samples)

    def _average_statistics(self) -> None:
        self.ranks.average([statistic for statistic in self.statistics if statistic.is_floating_point()])

    def _gradients(self, micro: int | None) -> list[Loss]:
        """Add up the gradients of a step in rounds of at most `micro` images; return the losses of the rounds."""
        batch, taken = self.recipe.train.batch, []
        rounds = self.ranks.rounds(self.seen, batch, micro)
        for start, count in rounds:
            x0, label, positions, augment = self._examples(start, count)
            with quiet(self.replicas, last=start == rounds[-1][0]):
                with seeded(self.recipe.train.seed, start, self.device):
                    loss = self.replicas(self.objective, x0, label, positions, augment)
                (self._weighted(loss).sum() * (self.ranks.world / batch)).backward()
            taken.append(loss)
        return taken

    def _undo(self, statistics: list[Tensor]) -> None:
        """Forget the gradients, and set the running statistics of BatchNorm back."""
        self._forget()
        set_back(self.statistics, statistics)

    def _forget(self) -> None:
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)

    def _examples(self, start: int, count: int) -> tuple[Tensor, Tensor | None, Tensor, Tensor | None]:
        """Return images, labels, positions and augmentation labels of a range of positions."""
        x0, label, positions = self.loader.batch(start, count)
        label = label if self.recipe.data.labels else None
        if not self.recipe.data.augment:
            return x0, label, positions, None
        x0, augment = edm_augment(x0, positions, seed=self.recipe.train.seed, p=self.recipe.data.augment)
        return x0, label, positions, augment

    def _weighted(self, loss: Loss) -> Tensor:
        """Return the loss to minimise per image: weighted where the draw is not uniform."""
        return loss.each if self.memory is None else loss.each * self.memory.weight(loss.level).to(loss.each)

    def _note(self, taken: list[Loss], each: Tensor, norm: Tensor, good: Tensor | None = None) -> Tensor:
        """Log a step that was taken (if `good`), let the draw remember it, and return where its losses were taken."""
        level = Level(torch.cat([v.level.alpha for v in taken]), torch.cat([v.level.sigma for v in taken]))
        weighted = torch.cat([self._weighted(loss).detach() for loss in taken])
        parts = {name: torch.cat([loss.parts[name] for loss in taken]) for name in taken[0].parts}
        self.tally.add(each, level.log_snr, norm, weighted=weighted, parts=parts, good=good)
        if self.memory is not None:  # every rank remembers the losses of all
            alpha, sigma = self.ranks.in_order(level.alpha), self.ranks.in_order(level.sigma)
            self.memory.update(Level(alpha, sigma), self.ranks.in_order(each))
        return level.log_snr

    def record(self, now: float, spent: float) -> dict[str, Any]:
        """Return the first rank's log record of everything since the last one; `now` in seconds of this process.

        All ranks call it, since it adds up what they saw.
        """
        self._settle()
        self.ranks.sum_to_first(self.tally.summed())
        return {
            "step": self.step,
            "images": self.seen,
            **self.tally.take(),
            "lr": self.optimizers[0].param_groups[0]["lr"],
            "skipped": self.watch.total,
            "seconds": round(self.elapsed + now, 2),
            "spent": round(spent, 6),
        }

    def tensors(self) -> dict[str, dict[str, Tensor]]:
        """Return every tensor of the state, grouped by file, on the first rank; all ranks call it."""
        self._settle()
        self.ranks.sum_to_first(self.tally.summed())
        groups = {"network": dict(self.network.state_dict())}
        groups |= {f"ema-{name}": weights for name, weights in self.averages.weights.items()}
        groups |= {f"optimizer-{i}": optimizer_tensors(o) for i, o in enumerate(self.optimizers)}
        groups["tally"] = self.tally.tensors()
        if self.memory is not None:
            groups["draw"] = self.memory.state()
        if isinstance(self.objective, nn.Module):
            groups["objective"] = dict(self.objective.state_dict())
        return self.weights.gathered(groups)

    def load(self, saved: checkpoint.Checkpoint) -> None:
        """Take over the state of a checkpoint."""
        self.open = None
        self._load(self.network, saved.tensors["network"])
        for name, weights in self.averages.weights.items():
            for key, value in saved.tensors[f"ema-{name}"].items():
                weights[key].copy_(self.weights.divided(value, weights[key]))
        for i, optimizer in enumerate(self.optimizers):
            load_optimizer(optimizer, saved.tensors[f"optimizer-{i}"], self.weights.divided)
        self.tally.load(saved.tensors["tally"])
        for value in self.tally.summed().values():
            value *= self.ranks.first
        if self.memory is not None:
            self.memory.load(saved.tensors["draw"])
        if isinstance(self.objective, nn.Module):
            self._load(self.objective, saved.tensors["objective"])
        self.seen, self.step = saved.state["seen"], saved.state["step"]
        self.elapsed, self.watch.total = saved.state["elapsed"], saved.state["skipped"]

    def _load(self, module: nn.Module, saved: Mapping[str, Tensor]) -> None:
        state = module.state_dict()
        module.load_state_dict({name: self.weights.divided(value, state[name]) for name, value in saved.items()})


def _weights(plan: Plan, ranks: Ranks, device: torch.device) -> Copies:
    """Return how the ranks hold the weights: whole, or divided if the recipe says so and there are several."""
    if not plan.recipe.train.shard or ranks.world == 1:
        return Copies(ranks)
    from sfumato.training.shards import Shards  # what it imports takes a second

    return Shards(ranks, device, lambda: plan.build_network(device))
