"""Images do not depend on how many processes make them, nor on the batch beyond rounding (P15)."""

from __future__ import annotations

import json
import os
import shutil

import pytest
import torch
from PIL import Image
from tests.processes.processes import codes, start

from sfumato.core.images import NonFiniteError
from sfumato.core.noise import SamplingNoise
from sfumato.evaluation import evaluate
from sfumato.processes.dealing import images_of_all
from sfumato.processes.ranks import join
from sfumato.report import seed_folder
from sfumato.runs.override import override
from sfumato.runs.run import Run
from sfumato.sources import in_turn
from sfumato.training.loop import train

BATCHES = (1, 7, 64)
COUNT = 100


def make(folder, out, batches) -> None:
    """Work of a process: make the images of seeds 0 to 99 in batches of several sizes, with the others."""
    ranks, device = join("cpu")
    run = Run.open(folder)
    for batch in batches:
        told: list[int] = []
        source = run.with_recipe(override(run.recipe, [f"sample.batch={batch}"])).source(device=device)
        images = images_of_all(ranks, source, range(COUNT), in_turn(range(COUNT), range(10)), progress=told.append)
        assert sum(told) <= COUNT and len(told) == len(ranks.deal(COUNT, batch))
        if ranks.first:
            assert sum(told) == COUNT
            torch.save(images, out / f"{ranks.world}-{batch}.pt")


def make_bad(folder) -> None:
    """Work of a process: one image of the second process is NaN; both must hear of it."""
    ranks, device = join("cpu")
    source = Run.open(folder).source(device=device)
    source.batch = 4
    clean = source.denoiser

    def broken(x, level, label=None):
        found = clean(x, level, label)
        found.x0[0] += float("nan") if ranks.rank == 1 else 0.0
        return found

    source.denoiser = broken
    with pytest.raises(NonFiniteError):
        images_of_all(ranks, source, range(8), in_turn(range(8), range(10)))


def write(folder, out) -> None:
    """Work of a process: write one file a seed."""
    ranks, device = join("cpu")
    source = Run.open(folder).source(device=device)
    source.batch = 4
    written = seed_folder.fill(out, source, range(22), in_turn(range(22), range(10)), {"made": "so"}, ranks=ranks)
    (out / f"told-{ranks.rank}.json").write_text(json.dumps(written))


@pytest.fixture(scope="module")
def run(tiny, tmp_path_factory):
    """A run after two steps."""
    return train(override(tiny, ["train.images=32"]), tmp_path_factory.mktemp("run"), device="cpu", quiet=True).path


def test_images_are_those_of_one_process(run, tmp_path):
    """P15: seeds 0 to 99, batch 1, 7, 64, world size 1, 2: identical for a batch, within a level between batches."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    processes = start(make, 2, run, tmp_path, BATCHES)
    make(run, tmp_path, BATCHES)
    torch.set_num_threads(before)
    assert codes(processes) == [0, 0]
    images = {w: {b: torch.load(tmp_path / f"{w}-{b}.pt") for b in BATCHES} for w in (1, 2)}
    for batch in BATCHES:
        assert images[1][batch].shape == (COUNT, 1, 8, 8)
        assert torch.equal(images[1][batch], images[2][batch]), batch
        assert (images[1][batch].int() - images[1][1].int()).abs().max() <= 1, batch
    assert images[1][1].unique().numel() > 20, "the images are not all alike"


@pytest.mark.parametrize("batch", BATCHES)
def test_noise_is_that_of_the_seed(batch):
    whole = SamplingNoise(torch.arange(COUNT), (1, 8, 8))
    parts = [SamplingNoise(part, (1, 8, 8)) for part in torch.arange(COUNT).split(batch)]
    assert torch.equal(torch.cat([p.start() for p in parts]), whole.start())
    assert torch.equal(torch.cat([p(3) for p in parts]), whole(3))


def test_nan_on_one_process_is_an_error_on_all(run):
    assert codes(start(make_bad, 2, run)) == [0, 0]


def test_two_processes_write_one_set_and_make_only_what_is_missing(run, tmp_path):
    """Files of two processes equal those of one, and after a loss both make what is missing."""
    both, alone = tmp_path / "both", tmp_path / "alone"
    write(run, alone)
    assert codes(start(write, 2, run, both)) == [0, 0]
    assert [json.loads((both / f"told-{r}.json").read_text()) for r in (0, 1)] == [22, 22]
    names = sorted(p.name for p in alone.glob("seed-*.png"))
    assert len(names) == 22 and sorted(p.name for p in both.glob("seed-*.png")) == names
    for lost in (names[0], names[9], names[21]):
        (both / lost).unlink()
    kept = {n: (both / n).stat().st_mtime_ns for n in names if (both / n).exists()}
    assert codes(start(write, 2, run, both)) == [0, 0]
    assert json.loads((both / "told-1.json").read_text()) == 3
    assert all((both / n).stat().st_mtime_ns == when for n, when in kept.items())
    assert all(Image.open(both / n).tobytes() == Image.open(alone / n).tobytes() for n in names)


def judge(folder, cache) -> None:
    """Work of a process: evaluate a run, and check that every process is told the result."""
    os.environ["XDG_CACHE_HOME"] = str(cache)
    result = evaluate(Run.open(folder), n=70, metrics=("fd", "kid"), device="cpu", quiet=True)
    assert [score.n for score in result.scores] == [70, 70]


@pytest.mark.slow
def test_scores_are_those_of_one_process(run, tmp_path):
    """Features are taken block by block in the order of the seeds, so scores, intervals and floors are identical."""
    results = []
    for world in (1, 2):
        folder = tmp_path / f"run-{world}"
        shutil.copytree(run, folder)
        file = folder / "recipe.json"
        file.write_text(file.read_text().replace('"batch": 128', '"batch": 16'))
        assert codes(start(judge, world, folder, tmp_path / f"cache-{world}")) == [0] * world
        results += [json.loads(path.read_text()) for path in (folder / "results").glob("*.json")]
    one, two = results
    assert one["provenance"]["batch"] == 16 and one["provenance"]["nfe"] == two["provenance"]["nfe"]
    for a, b in zip(one["scores"], two["scores"]):
        assert (a["value"], a["interval"], a["floor"]["value"]) == (b["value"], b["interval"], b["floor"]["value"])
