"""Work is divided by position: every position once, in order, and in the rounds of one process where that can be."""

from __future__ import annotations

import pytest
import torch

from sfumato.processes.ranks import LaunchError, Ranks, join
from sfumato.runs.override import override
from sfumato.training.loop import check_shared


@pytest.mark.parametrize("world", [1, 2, 3, 8])
@pytest.mark.parametrize("count", [8, 13, 64])
@pytest.mark.parametrize("micro", [None, 1, 5, 100])
def test_shares_partition_the_batch(world, count, micro):
    """Positions start .. start + count are seen once, in order of rank; shares differ by one at most."""
    rounds = [Ranks(r, world).rounds(1000, count, micro) for r in range(world)]
    seen = [p for own in rounds for start, n in own for p in range(start, start + n)]
    assert seen == list(range(1000, 1000 + count))
    shares = [sum(n for _, n in own) for own in rounds]
    assert max(shares) - min(shares) <= 1
    assert all(1 <= n <= (micro or count) for own in rounds for _, n in own)


@pytest.mark.parametrize("world", [2, 4])
def test_rounds_are_those_of_one_process(world):
    """Where micro divides the shares: then dropout, addressed by the round, is the same too."""
    split = [cut for r in range(world) for cut in Ranks(r, world).rounds(0, 64, 8)]
    assert split == Ranks().rounds(0, 64, 8)


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("block", [1, 7, 64])
def test_blocks_are_dealt_once(world, block):
    parts = [part for r in range(world) for part in Ranks(r, world).deal(100, block)]
    seeds = list(range(100))
    assert sorted(s for part in parts for s in seeds[part]) == seeds
    assert all(part.start % block == 0 for part in parts), "blocks are those of one process"


def test_fewer_images_than_processes_is_refused():
    with pytest.raises(LaunchError, match=r"train.batch=3 .* 4 processes.*Start at most 3"):
        Ranks(0, 4).rounds(0, 3, None)


def test_what_needs_the_whole_batch_is_refused(tiny):
    recipe = override(tiny, ["objective.coupling=ot"])
    check_shared(recipe, Ranks())
    with pytest.raises(LaunchError, match="coupling=ot .* whole batch"):
        check_shared(recipe, Ranks(0, 2))


def test_a_device_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    with pytest.raises(LaunchError, match="not on mps"):
        join("mps")
    with pytest.raises(LaunchError, match=r"cuda:0 is one GPU for 2 processes"):
        join("cuda:0")
    with pytest.raises(LaunchError, match=r"process 1 .* 1 GPU\. .*--nproc-per-node 1"):
        join("cuda")


def test_what_cannot_be_divided_is_refused(tiny, monkeypatch):
    from sfumato.networks.edm2 import Layer
    from sfumato.training.optim import muon
    from sfumato.training.shards import Shards

    check_shared(override(tiny, ["train.shard=true"]), Ranks(0, 2))
    with pytest.raises(LaunchError, match="as many rounds"):
        check_shared(override(tiny, ["train.shard=true", "train.batch=9", "train.micro=4"]), Ranks(0, 2))
    monkeypatch.setattr("sfumato.training.shards.init_device_mesh", lambda kind, shape: None)
    shards = Shards(Ranks(0, 2), torch.device("cpu"), torch.nn.Identity)
    with pytest.raises(LaunchError, match="edm2"):
        shards.divide([Layer(2, 2, 3)])
    with pytest.raises(LaunchError, match="muon steps whole matrices"):
        shards.check(muon(torch.nn.Sequential(*(torch.nn.Conv2d(2, 2, 1) for _ in range(3)))))
