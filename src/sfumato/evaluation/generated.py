"""Generated images as features: they stream from the sampler into numbers and never touch the disk.

Rows are kept on disk (`rows.Rows`) under the hash of everything that decides them: what makes the images, by content
(`runs.identity`), seeds, device, versions and this program's source. So a killed evaluation goes on where it was,
another metric costs no new images, and memory does not grow with n. Images are made in the blocks of the recipe's
batch, dealt over processes, so image i is the same for any number of them; the first process keeps what all of them
make.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfumato.core.condition import Condition, Label
from sfumato.data.hashing import hash_images
from sfumato.evaluation.cache import place, source_hash
from sfumato.evaluation.rows import Rows
from sfumato.processes.machine import describe
from sfumato.processes.ranks import Ranks
from sfumato.progress import bar_of
from sfumato.runs.identity import identity, key_of, summary
from sfumato.runs.run import Run
from sfumato.sources import watched


@dataclass(frozen=True, slots=True)
class Output:
    """Numbers that an image becomes.

    Arguments:
        compute: uint8 images (B, C, H, W) -> (B, width).
        width: Numbers of an image.
        facts: JSON values that decide them: extractor, weights, layer.
        dtype: "float32" or "uint8".
    """

    compute: Callable[[Tensor], np.ndarray]
    width: int
    facts: Any
    dtype: str = "float32"


HASHES = Output(hash_images, 32, "sha256", "uint8")


def pixels_of(shape: tuple[int, int, int]) -> Output:
    """Return the output that keeps the pixels themselves, for pictures and pixel distances."""
    return Output(lambda images: images.flatten(1).numpy(), int(np.prod(shape)), ["pixels", *shape], "uint8")


def generate(
    run: Run,
    n: int,
    outputs: Mapping[str, Output],
    *,
    first_seed: int = 0,
    use: str | None = None,
    device: torch.device,
    quiet: bool = False,
    ranks: Ranks = Ranks(),
    labels: Label | None = None,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Make n images and keep what they become.

    Arguments:
        run: The run; its recipe says how it is sampled.
        n: Number of images.
        outputs: What to keep of them, by name.
        first_seed: Seeds are first_seed .. first_seed + n.
        use: Name of an average of the weights; None for the recipe's choice.
        device: Where to sample.
        quiet: Whether progress bars are left out.
        ranks: The processes that share the work, block by block; the first keeps what all of them make.
        labels: What each image is made under (`runs.conditions.in_order`); None for nothing.

    Returns:
        Arrays (n, width) by name, read from disk where they are used, and facts about how the images were made;
        empty but on the first process.

    Raises:
        NonFiniteError: On every process, if an image holds NaN or infinity; its block is not kept.
    """
    recipe, batch = run.recipe, run.recipe.sample.batch
    found, saved = identity(run, use), run.taken(use)[0]
    decides = [key_of(found), first_seed, n, describe(device), source_hash(), *_digest(labels)]
    wanted = {"hashes": HASHES, **outputs}
    stores = (
        {name: Rows(place("generated", [decides, out.facts]), n, out.width, out.dtype) for name, out in wanted.items()}
        if ranks.first
        else {}
    )
    blocks = [(start, min(n, start + batch)) for start in range(0, n, batch)]
    missing = {span: [name for name, rows in stores.items() if span not in rows.blocks] for span in blocks}
    left = ranks.from_first([(span, names) for span, names in missing.items() if names])
    for entry in _made(run, wanted, left, n, first_seed, use, device, quiet, ranks, labels):
        for name, rows in entry.rows.items() if ranks.first else ():
            stores[name].write(entry.start, rows, seconds=entry.seconds, calls=entry.calls, weak=entry.weak)
    if not ranks.first:
        return {}, {}
    made = list(stores["hashes"].blocks.values())
    calls, weaker, seconds = (sum(b[key] for b in made) for key in ("calls", "weak", "seconds"))
    per_image = calls // n if calls % n == 0 else round(calls / n, 2)
    facts = {
        "checkpoint": saved.path.name,
        **({"training_seconds": round(saved.state["elapsed"], 1)} if "elapsed" in saved.state else {}),
        "recipe": recipe.hash,
        **summary(found),
        "training_data": run.about.get("fingerprint", {}),
        **replace(run.making(use), nfe=per_image, seeds=(first_seed, first_seed + n)).to_json(),
        "nfe_weak": weaker // n if weaker % n == 0 else round(weaker / n, 2),
        "precision": recipe.train.precision,
        "batch": batch,
        "images_per_second": round(ranks.world * n / max(seconds, 1e-9), 2),
        "machine": describe(device) | {"processes": ranks.world},
    }
    return {name: store.array() for name, store in stores.items()}, facts


def _digest(label: Label | None) -> list[str]:
    """Return the hash of a condition of more than a class; classes in turn follow from their number."""
    if not isinstance(label, Condition):
        return []
    return [hashlib.sha256(part.numpy().tobytes()).hexdigest() for part in label.parts.values()]


@dataclass(frozen=True, slots=True)
class _Block:
    """What one block of images became, and what it cost."""

    start: int
    rows: dict[str, np.ndarray]
    seconds: float
    calls: int
    weak: int


def _made(
    run: Run,
    wanted: Mapping[str, Output],
    left: list[tuple[tuple[int, int], list[str]]],
    n: int,
    first_seed: int,
    use: str | None,
    device: torch.device,
    quiet: bool,
    ranks: Ranks,
    labels: Label | None,
) -> Iterator[_Block]:
    """Yield the blocks that are left, one a process at a time, on every process."""
    if not left:
        return
    source, asked = run.counted(use, device)

    def compute(start: int, stop: int, names: list[str]) -> _Block:
        began, before = time.monotonic(), asked()
        images = source(range(first_seed + start, first_seed + stop), None if labels is None else labels[start:stop])
        seconds = time.monotonic() - began
        own, weak = (after - then for after, then in zip(asked(), before))
        rows = {name: np.asarray(wanted[name].compute(images)) for name in names}
        return _Block(start, rows, seconds, own + weak, weak)

    done = n - sum(stop - start for (start, stop), _ in left)
    with bar_of(n, "img", "sampling", quiet=quiet, initial=done) as bar:
        source, finished = watched(source, bar, ranks.world)
        for turn in range(0, len(left), ranks.world):
            mine = left[turn + ranks.rank : turn + ranks.rank + 1]
            try:
                result: _Block | ValueError | None = compute(*mine[0][0], mine[0][1]) if mine else None
            except ValueError as error:  # the others must hear of it, or they wait
                result = error
            found = ranks.gather(result)
            for block in found:
                if isinstance(block, ValueError):
                    raise block
            for block in found:
                if isinstance(block, _Block):
                    yield block
            finished(sum(stop - start for (start, stop), _ in left[turn : turn + ranks.world]))
