"""Several processes that make one run: who this one is, its share of the work, and what all of them agree on.

`torchrun` (or a SLURM script) starts the processes and tells each its rank by RANK, WORLD_SIZE, LOCAL_RANK, MASTER_ADDR
and MASTER_PORT; `join` meets the others. Without these variables there is one process and nothing here communicates.

Because every random number is addressed by a sample's position or an image's seed, work is divided by position alone:

    training    of the positions p .. p + batch each rank takes a contiguous share, equal to within one
    sampling    blocks of `batch` seeds are dealt in turn; a block is computed whole, so its rounding is the same

Gradients are summed over ranks and divided by the batch of the recipe (`training.replicas`). What depends on a clock or
on a signal is agreed on once a step (`Ranks.largest`), so all ranks stop, save and finish together. Numbers that the
host must know travel by gloo between CPUs and never wait for a device; tensors on a GPU travel by NCCL.

A rank that dies closes its connections, and the others end with `RankLost`. Where they wait inside a kernel and cannot
notice, the heartbeat does (`processes.heartbeat`).
"""

from __future__ import annotations

import datetime
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from sfumato.processes.heartbeat import Heartbeat

T = TypeVar("T")
TIMEOUT = "SFUMATO_TIMEOUT"  # minutes that a rank waits for a living one, 60 unless set
_heartbeat: list[Heartbeat] = []  # of this process, once it has joined others


class RankLost(RuntimeError):
    """Another process of the run has ended or does not answer."""


class LaunchError(ValueError):
    """The processes were started in a way that cannot work."""


@dataclass(frozen=True, slots=True)
class Ranks:
    """The processes of a run, as one of them sees them.

    Attributes:
        rank: Number of this process, in [0, world).
        world: Number of processes.
    """

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes the files and speaks to the terminal."""
        return self.rank == 0

    def rounds(self, start: int, count: int, micro: int | None) -> list[tuple[int, int]]:
        """Return this rank's share of a batch, cut into rounds.

        Arguments:
            start: First position of the batch.
            count: Positions in it, over all ranks.
            micro: Most positions in a round; None for the whole share.

        Returns:
            (first position, positions) of each round, in order. The shares of all ranks are contiguous, in order of
            rank, and equal to within one. Where `micro` divides the shares, the rounds are those of a single process.

        Raises:
            LaunchError: If there are fewer positions than ranks.

        >>> Ranks(0, 2).rounds(100, 7, None), Ranks(1, 2).rounds(100, 7, 3)
        ([(100, 3)], [(103, 3), (106, 1)])
        """
        if count < self.world:
            raise LaunchError(
                f"train.batch={count} cannot be shared by {self.world} processes: each needs at least one image. "
                f"Start at most {count}, or set a larger train.batch."
            )
        low, high = (start + count * r // self.world for r in (self.rank, self.rank + 1))
        most = high - low if micro is None else micro
        return [(first, min(most, high - first)) for first in range(low, high, most)]

    def deal(self, count: int, block: int) -> list[slice]:
        """Return this rank's blocks of `count` things: every world-th, from its own rank on.

        >>> Ranks(1, 2).deal(10, 3)
        [slice(3, 6, None), slice(9, 10, None)]
        """
        return [slice(i, min(count, i + block)) for i in range(self.rank * block, count, self.world * block)]

    def largest(self, *values: float) -> tuple[float, ...]:
        """Return the largest of each value over the ranks: what one knows, all know."""
        if self.world == 1:
            return values
        agreed = torch.tensor(values, dtype=torch.float64)
        with others_may_end():
            dist.all_reduce(agreed, dist.ReduceOp.MAX)
        return tuple(agreed.tolist())

    def everywhere(self, flag: Tensor) -> Tensor:
        """Return whether a bool () holds on every rank, on its device and without waiting for it."""
        if self.world == 1:
            return flag
        counted = flag.to(torch.int32)
        dist.all_reduce(counted, dist.ReduceOp.MIN)
        return counted.to(torch.bool)

    def sum_to_first(self, tensors: Mapping[str, Tensor]) -> None:
        """Add tensors over the ranks, in place, on the first; the others' become zero."""
        if self.world == 1:
            return
        for name in sorted(tensors):
            dist.reduce(tensors[name], 0)
            if not self.first:
                tensors[name].zero_()

    def average(self, tensors: list[Tensor]) -> None:
        """Replace tensors by their means over the ranks, in place."""
        for tensor in tensors if self.world > 1 else ():
            dist.all_reduce(tensor)
            tensor /= self.world

    def in_order(self, rows: Tensor) -> Tensor:
        """Return rows (b, ...) of all ranks below one another, in order of rank; b may differ."""
        return torch.cat(self.gather(rows.cpu())) if self.world > 1 else rows

    def gather(self, value: T) -> list[T]:
        """Return the values of all ranks, by rank; the same on every rank."""
        if self.world == 1:
            return [value]
        values: list[T] = [value] * self.world
        with others_may_end():
            dist.all_gather_object(values, value)
        return values

    def from_first(self, value: T) -> T:
        """Return the first rank's value; the others' is ignored."""
        if self.world == 1:
            return value
        values = [value]
        with others_may_end():
            dist.broadcast_object_list(values, 0)
        return values[0]

    def tensors_from_first(
        self, groups: Mapping[str, Mapping[str, Tensor]] | None
    ) -> dict[str, dict[str, Tensor]] | None:
        """Return groups of CPU tensors that the first rank read; None if it has none."""
        if self.world == 1:
            return None if groups is None else {stem: dict(group) for stem, group in groups.items()}
        known = None if groups is None else {s: {k: v.to("meta") for k, v in g.items()} for s, g in groups.items()}
        shapes = self.from_first(known)
        if shapes is None:
            return None
        own = (
            groups
            if self.first and groups is not None
            else {s: {k: torch.empty_like(v, device="cpu") for k, v in g.items()} for s, g in shapes.items()}
        )
        with others_may_end():
            for group in own.values():
                for tensor in group.values():
                    dist.broadcast(tensor, 0)
        return {stem: dict(group) for stem, group in own.items()}

    def meet(self) -> None:
        """Wait until every rank is here."""
        self.largest(0)

    @contextmanager
    def in_turn(self) -> Iterator[None]:
        """Let the first rank through the block before the others: it downloads and prepares, they find it done."""
        if not self.first:
            self.meet()
        yield
        if self.first:
            self.meet()


@contextmanager
def others_may_end() -> Iterator[None]:
    """Turn the errors of a connection that another rank has closed into one `RankLost`."""
    try:
        yield
    except RuntimeError as error:
        if isinstance(error, dist.DistError) or "gloo" in str(error):
            raise RankLost(
                "Another process of this run has ended or does not answer; its own message says why. What was saved "
                f"last is whole, and the same command goes on from there. ({str(error).splitlines()[0][:200]})"
            ) from error
        raise


def join(device: torch.device | str) -> tuple[Ranks, torch.device]:
    """Meet the other processes of this run, if there are any.

    Arguments:
        device: Device of this process; "cuda" becomes the GPU of its local rank.

    Returns:
        The ranks, and the device.

    Raises:
        LaunchError: If there are more processes than GPUs, one GPU is named for all, or the device cannot communicate.
    """
    device = torch.device(device)
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if dist.is_available() and dist.is_initialized():  # by the caller, or by an earlier call
        world = dist.get_world_size()
    if world == 1:
        return Ranks(), device
    device = _own(device, world)
    if not dist.is_initialized():
        _meet(device)
    return Ranks(dist.get_rank(), world), device


def _own(device: torch.device, world: int) -> torch.device:
    """Return this process's own device of a kind."""
    if device.type == "cpu":
        return device
    if device.type != "cuda":
        raise LaunchError(f"{world} processes share a run on cuda or cpu, not on {device.type}. Start one process.")
    local, here = int(os.environ.get("LOCAL_RANK", "0")), torch.cuda.device_count()
    if device.index not in (None, local):
        raise LaunchError(
            f"--device {device} is one GPU for {world} processes. Give --device cuda: each takes its own."
        )
    if local >= here:
        raise LaunchError(
            f"This is process {local} of its machine, which has {here} GPU{'s' * (here != 1)}. Start one process a GPU "
            f"(--nproc-per-node {here}), or add --device cpu."
        )
    device = torch.device("cuda", local)
    torch.cuda.set_device(device)
    return device


def _meet(device: torch.device) -> None:
    minutes = float(os.environ.get(TIMEOUT, "60"))
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    timeout = datetime.timedelta(minutes=minutes)
    store, rank, world = next(dist.rendezvous("env://", timeout=timeout))
    dist.init_process_group(backend, store=store, rank=rank, world_size=world, timeout=timeout)
    _heartbeat.append(Heartbeat(rank, world))
    _heartbeat[0].start()


def leave() -> None:
    """Say that this process has done its part and ends in peace; the others work on."""
    while _heartbeat:
        _heartbeat.pop().stop()
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()
