"""What lies on disk changes only after the work has succeeded, and nothing bad replaces what is good (P1, P5, P9)."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from tests.cli.conftest import cli
from tests.conftest import TINY
from tests.faults.test_killed_again_and_again import log_of

from sfumato.core.images import tile
from sfumato.runs import checkpoint
from sfumato.runs.checkpoint import CheckpointError
from sfumato.runs.lock import NAME, locked
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.run import Run
from sfumato.training.guard import Diverged
from sfumato.training.hooks import sheets as drawing
from sfumato.training.loop import Interrupted, train
from sfumato.training.trainer import Trainer

__all__ = ["cli"]  # a fixture
NAN = float("nan")


@pytest.fixture(scope="module")
def short(tiny: Recipe) -> Recipe:
    """Eight steps, a checkpoint after each."""
    return override(tiny, ["train.rate=constant", "train.images=128", "train.save_every=0.0", "train.log_every=16"])


@pytest.fixture(scope="module")
def finished(short: Recipe, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of `short`."""
    folder = tmp_path_factory.mktemp("state") / "run"
    train(short, folder, quiet=True)
    return folder


@pytest.fixture
def run(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished run."""
    return Path(shutil.copytree(finished, tmp_path / "run"))


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def tensors_of(folder: Path) -> dict[str, dict[str, torch.Tensor]]:
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    return {stem: dict(group) for stem, group in found.tensors.items()}


def equal(a: Path, b: Path) -> bool:
    """Return whether the newest checkpoints of two runs hold the same bits."""
    one, other = tensors_of(a), tensors_of(b)
    return one.keys() == other.keys() and all(
        torch.equal(value, other[stem][name]) for stem, group in one.items() for name, value in group.items()
    )


def sign(folder: Path) -> None:
    """Write the manifest of a checkpoint anew, so that its hashes are those of what lies there."""
    manifest = json.loads((folder / "MANIFEST.json").read_text())
    manifest["files"] = {
        p.name: {"size": p.stat().st_size, "sha256": checkpoint._digest(p)}
        for p in sorted(folder.iterdir())
        if p.name != "MANIFEST.json"
    }
    (folder / "MANIFEST.json").write_text(json.dumps(manifest))


def poison(folder: Path, stem: str = "network") -> None:
    """Put a NaN into a group of a whole checkpoint, as an earlier version could save it."""
    tensors = load_file(folder / f"{stem}.safetensors")
    next(v for v in tensors.values() if v.is_floating_point() and v.numel()).view(-1)[0] = NAN
    checkpoint.save_file(tensors, folder / f"{stem}.safetensors")
    sign(folder)


REFUSED = {
    "another network, allowed": (["network.width=32"], ("network",), CheckpointError, "cannot be taken over"),
    "another rate": (["train.optimizer.lr=0.5"], (), RecipeError, "train.optimizer.lr"),
    "another beginning, allowed": (
        ["train.start=elsewhere"],
        ("train.start",),
        RecipeError,
        "began with train.start=none, and a run that goes on keeps its beginning",
    ),
    "a precision, nothing to train": (["train.precision=bf16"], ("train.precision",), None, ""),
    "fewer images": (["train.images=64"], ("train.images",), None, ""),
    "other samples": (["sample.grid.steps=5"], (), None, ""),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_or_trains_nothing_leaves_every_file(case: str, short: Recipe, run: Path) -> None:
    words, allow, error, said = REFUSED[case]
    before = content(run)
    if error is None:
        train(override(short, words), run, quiet=True, allow=allow)
    else:
        with pytest.raises(error, match=said) as caught:
            train(override(short, words), run, quiet=True, allow=allow)
        assert "Traceback" not in str(caught.value)
    assert content(run) == before
    train(override(short, ["train.images=144"]), run, quiet=True, allow=("train.images",))  # the old recipe goes on


def test_a_network_that_does_not_fit_is_refused_in_one_sentence_on_the_command_line(run: Path, cli) -> None:
    """Exit 2, and `sample` still takes the run."""
    words = [*TINY, "network.width=32", "train.images=128", "train.rate=constant"]
    said = cli("train", "edm-digits", *words, "--allow", "network", "--out", run, "--device", "cpu", "--quiet")
    assert said.code == 2 and "cannot be taken over" in said.err and "Traceback" not in said.err
    assert cli("sample", run, "--n", 2, "--device", "cpu").code == 0


@pytest.mark.parametrize("mark", ["selected", "exported", "imported"])
def test_weights_without_an_optimiser_are_not_trained_on(mark: str, short: Recipe, run: Path) -> None:
    """RUN/best keeps its mark."""
    about = json.loads((run / "recipe.json").read_text())
    (run / "recipe.json").write_text(
        json.dumps(about | {mark: {"what": "checkpoint", "by": "fd", "n": 500, "candidates": 3, "reference": "x"}})
    )
    for folder in (run / "checkpoints").iterdir():
        (folder / "optimizer-0.safetensors").unlink()
        sign(folder)
    before = content(run)
    with pytest.raises(RecipeError, match=f"holds {mark} weights without an optimiser"):
        train(override(short, ["train.images=256"]), run, quiet=True, allow=("train.images",))
    assert content(run) == before


def test_a_run_that_diverges_at_once_keeps_its_recipe(short: Recipe, run: Path) -> None:
    """A rate beyond all bounds for as many steps as may be bad: exit 4, and the run is what it was."""
    before = {name: kept for name, kept in content(run).items() if name != "metrics.jsonl"}
    wild = override(short, ["train.images=448", "train.optimizer.lr=1e30"])
    with pytest.raises(Diverged, match="was not finite at step"):
        train(wild, run, quiet=True, allow=("train.images", "train.optimizer.lr"))
    assert {name: kept for name, kept in content(run).items() if name != "metrics.jsonl"} == before
    train(override(short, ["train.images=144"]), run, quiet=True, allow=("train.images",))


GROUPS = ["network", "ema-power-0.10", "ema-half-0.001", "optimizer-0", "tally"]


@pytest.mark.parametrize("stem", GROUPS)
@pytest.mark.parametrize("value", [NAN, float("inf")])
def test_nothing_that_is_not_finite_is_saved(stem: str, value: float, run: Path) -> None:
    tensors, before = tensors_of(run), content(run)
    next(v for v in tensors[stem].values() if v.is_floating_point() and v.numel()).view(-1)[0] = value
    with pytest.raises(CheckpointError, match=f"of {stem} is not finite"):
        checkpoint.save(run / "checkpoints", 9, tensors, {"seen": 144})
    assert content(run) == before


@pytest.mark.parametrize("stem", GROUPS)
def test_a_checkpoint_that_is_not_finite_is_passed_over(stem: str, short: Recipe, run: Path, finished: Path) -> None:
    """Not resumed from, not sampled from; and the next save does not count it among those it keeps."""
    poison(run / "checkpoints" / "step-8", stem)
    with pytest.warns(UserWarning, match=f"step-8 is not taken: .* of {stem} is not finite"):
        assert Run.open(run).checkpoint.state["step"] == 7
    with pytest.warns(UserWarning, match="passed over"):
        train(override(short, ["train.images=128"]), run, quiet=True)
    assert equal(run, finished)
    assert checkpoint.steps(run / "checkpoints") == [7, 8]


def test_only_poisoned_checkpoints_are_refused_by_every_command(run: Path, cli) -> None:
    for folder in (run / "checkpoints").iterdir():
        poison(folder)
    for words in (["sample", run, "--n", 2], ["export", run, "--to", "safetensors", "--out", run.parent / "out"]):
        said = cli(*words)
        assert said.code == 2 and "not finite" in said.err and "Traceback" not in said.err
    assert not (run / "samples").exists()


def broken_at(step: int, do: Callable[[Trainer], None], monkeypatch: pytest.MonkeyPatch, once: bool = True) -> None:
    """Do something to a trainer after a step, once or after every one from there on."""
    advance, done = Trainer.advance, []

    def patched(self: Trainer, spent: float) -> bool:
        good = advance(self, spent)
        if self.step >= step and not (once and done):
            done.append(True)
            do(self)
        return good

    monkeypatch.setattr(Trainer, "advance", patched)


def no_average(trainer: Trainer) -> None:
    next(iter(trainer.averages.weights["half-0.001"].values())).fill_(NAN)


def no_moments(trainer: Trainer) -> None:
    next(iter(trainer.optimizers[0].state.values()))["exp_avg_sq"].fill_(float("inf"))


def no_weights(trainer: Trainer) -> None:
    next(iter(trainer.network.parameters())).data.fill_(NAN)


@pytest.mark.parametrize("do", [no_average, no_moments, no_weights])
def test_what_breaks_once_is_gone_back_from(do, short: Recipe, tmp_path: Path, monkeypatch) -> None:
    """Weights, an average alone, or the optimiser's state: the run goes back, counts go on, and the end is finite."""
    broken_at(4, do, monkeypatch)
    recipe = override(short, ["train.images=256", "train.bad_in_a_row=2"])
    run = train(recipe, tmp_path / "run", quiet=True)
    assert run.checkpoint.state["seen"] == 256 and not checkpoint.not_finite(run.checkpoint.tensors)
    records = log_of(run.path)
    steps, skipped = [r["step"] for r in records], [r["skipped"] for r in records]
    assert steps == list(range(1, 17)) and skipped == sorted(skipped)


@pytest.mark.parametrize(("do", "named"), [(no_average, "of ema-half-0.001"), (no_weights, "of network")])
def test_what_breaks_for_ever_ends_with_its_name(do, named: str, short: Recipe, tmp_path: Path, monkeypatch) -> None:
    broken_at(4, do, monkeypatch, once=False)
    with pytest.raises(Diverged, match=f"{named} was not finite at"):
        train(override(short, ["train.images=256", "train.bad_in_a_row=2"]), tmp_path / "run", quiet=True)
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [2, 3]
    assert Run.open(tmp_path / "run").checkpoint.state["step"] == 3


def test_an_interval_without_a_step_has_no_loss(short: Recipe, tmp_path: Path, monkeypatch) -> None:
    """null in the log, and the curves leave it out."""
    clipped = Trainer._clipped

    def patched(self: Trainer, each):
        norm, finite = clipped(self, each)
        return norm, finite & (self.step not in (3, 4))

    monkeypatch.setattr(Trainer, "_clipped", patched)
    run = train(short, tmp_path / "run", quiet=True)
    records = log_of(run.path)
    assert [r["step"] for r in records if r["loss"] is None] == [4, 5]
    assert records[3]["grad_norm"] is None and records[-1]["skipped"] == 2
    assert "NaN" not in (run.path / "metrics.jsonl").read_text()


def test_a_signal_while_all_is_bad_saves_nothing(short: Recipe, finished: Path, tmp_path: Path, monkeypatch) -> None:
    def stopped(trainer: Trainer) -> None:
        no_weights(trainer)
        os.kill(os.getpid(), signal.SIGTERM)

    broken_at(5, stopped, monkeypatch)
    with pytest.raises(Interrupted):
        train(short, tmp_path / "run", quiet=True)
    monkeypatch.undo()
    assert checkpoint.steps(tmp_path / "run" / "checkpoints") == [3, 4]
    train(short, tmp_path / "run", quiet=True)
    assert equal(tmp_path / "run", finished)


def test_a_run_belongs_to_one_training(short: Recipe, run: Path, cli) -> None:
    """A second one is refused in one sentence, changes nothing, and does not stop what only reads."""
    with locked(run):
        before = content(run)
        with pytest.raises(RecipeError, match=f"is being trained by process {os.getpid()} on"):
            train(override(short, ["train.images=256"]), run, quiet=True, allow=("train.images",))
        assert content(run) == before
        said = cli("train", "edm-digits", "--out", run, "--device", "cpu", "--quiet")
        assert said.code == 2 and "is being trained by" in said.err and "Traceback" not in said.err
        assert cli("sample", run, "--n", 2, "--device", "cpu").code == 0 and cli("ema", run).code == 0
    assert not (run / NAME).exists()


def test_a_dead_process_holds_no_lock(run: Path) -> None:
    holder = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", holder, str(run / NAME)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    with pytest.raises(RecipeError, match="is being trained"), locked(run):
        pass
    process.send_signal(signal.SIGKILL)
    process.wait()
    with locked(run), open(run / NAME) as file, pytest.raises(BlockingIOError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def rewritten(change: Callable[[dict], object]) -> Callable[[Path], None]:
    """Return what changes the state of a checkpoint and signs it."""

    def damage(folder: Path) -> None:
        state = json.loads((folder / "state.json").read_text())
        (folder / "state.json").write_text(json.dumps(change(state)))
        sign(folder)

    return damage


def lacking(name: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        (folder / name).unlink()
        sign(folder)

    return damage


def header(folder: Path) -> None:
    """A safetensors file whose header is no JSON, signed."""
    file = folder / "network.safetensors"
    file.write_bytes(file.read_bytes()[:8] + b"x" * 40 + file.read_bytes()[48:])
    sign(folder)


def cut(folder: Path) -> None:
    os.truncate(folder / "network.safetensors", 100)
    sign(folder)


DAMAGE: dict[str, Callable[[Path], object]] = {
    **{
        f"manifest {text[:24]}": lambda folder, text=text: (folder / "MANIFEST.json").write_text(text)
        for text in (
            *("null", "[]", "3", '"x"', "{}", '{"schema": 1}', '{"schema": 1, "files": null, "belongs": {}}', ""),
            *('{"schema": 1, "files": {"network.safetensors": 3}, "belongs": {}}', "[" * 100_000),
            '{"schema": 1, "files": {}, "belongs": {}}',
        )
    },
    "a lost tensor file": lambda folder: (folder / "network.safetensors").unlink(),
    "a tensor file that is a folder": lambda f: ((f / "tally.safetensors").unlink(), (f / "tally.safetensors").mkdir()),
    "no network": lacking("network.safetensors"),
    "no optimiser": lacking("optimizer-0.safetensors"),
    "no average": lacking("ema-power-0.10.safetensors"),
    "a header": header,
    "cut and signed": cut,
    "a state that is a list": rewritten(lambda state: []),
    "a state that is null": rewritten(lambda state: None),
    "words for a number": rewritten(lambda state: state | {"seen": "many"}),
    "a half step": rewritten(lambda state: state | {"step": 7.5}),
    "a negative count": rewritten(lambda state: state | {"skipped": -1}),
    "time that is NaN": rewritten(lambda state: state | {"elapsed": NAN}),
    "time that is null": rewritten(lambda state: state | {"elapsed": None}),
    "no recipe": rewritten(lambda state: {k: v for k, v in state.items() if k != "recipe"}),
    "a recipe of nothing": rewritten(lambda state: state | {"recipe": {"name": 3}}),
    "no step": rewritten(lambda state: {k: v for k, v in state.items() if k != "step"}),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_whatever_is_wrong_with_the_newest_the_one_before_is_taken(damage: str, short: Recipe, run: Path) -> None:
    """Said, and nothing else is lost."""
    DAMAGE[damage](run / "checkpoints" / "step-8")
    with pytest.warns(UserWarning, match=r"passed over: .*step-8") as said:
        done = train(short, run, quiet=True)
    assert len([w for w in said if "passed over" in str(w.message)]) == 1
    assert done.checkpoint.state["step"] == 8 and checkpoint.steps(run / "checkpoints") == [7, 8]


LINES = [b"\n", b"null\n", b"[1]\n", b"{}\n", b"\xff\xfe\n", b'{"step": "x"}\n', b"[" * 99_999 + b"\n"]


@pytest.mark.parametrize("line", LINES)
def test_a_damaged_line_costs_that_line(line: bytes, short: Recipe, run: Path, cli) -> None:
    file = run / "metrics.jsonl"
    before = log_of(run)
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*lines[:2], line, *lines[3:]]))
    assert cli("runs", run.parent).code == 0
    with pytest.warns(UserWarning, match="damaged in line 3"):
        train(override(short, ["train.images=144"]), run, quiet=True, allow=("train.images",))
    assert log_of(run)[:7] == [*before[:2], *before[3:]] and len(log_of(run)) == 8


ALLOWED = {
    "ema.half_life=0.002": ("ema.half_life", "ema-half-0.002"),
    "ema.power=0.05,0.10": ("ema.power", "ema-power-0.05"),
    "train.optimizer=radam": ("train.optimizer", "optimizer-0"),
    "train.optimizer=muon": ("train.optimizer", "optimizer-1"),
    "train.optimizer.lr=0.001": ("train.optimizer.lr", "optimizer-0"),
    "train.optimizer.beta2=0.99": ("train.optimizer.options.beta2", "optimizer-0"),
}


@pytest.mark.parametrize("word", ALLOWED)
def test_what_is_allowed_is_taken_over_or_made_new(word: str, short: Recipe, run: Path) -> None:
    field, group = ALLOWED[word]
    other = override(short, [word, "train.images=160"])
    with pytest.raises(RecipeError, match=field.replace("options.", "")):
        train(other, run, quiet=True, allow=("train.images",))
    done = train(other, run, quiet=True, allow=(field, "train.images"))
    assert done.checkpoint.state["step"] == 10 and group in done.checkpoint.tensors
    assert Run.open(run).recipe.train.images == 160


def test_a_new_average_starts_at_the_weights(short: Recipe, run: Path) -> None:
    weights = tensors_of(run)["network"]
    other = override(short, ["ema.half_life=1000.0", "ema.warmup=0.0", "train.images=144"])
    done = train(other, run, quiet=True, allow=("ema", "train.images"))
    average = done.checkpoint.tensors["ema-half-1000"]
    assert all(torch.allclose(average[name], value, atol=1e-4) for name, value in weights.items())


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_images_of_any_number_of_channels_are_drawn_channel_by_channel(channels: int, short, tmp_path: Path) -> None:
    """In grey, side by side, the last one never as transparency."""
    images = np.random.default_rng(0).integers(0, 256, (64, 8, 8, channels), dtype=np.uint8)
    np.savez(tmp_path / "many.npz", images=images)
    words = [f"data.name=npz:{tmp_path / 'many.npz'}", "data.first=none", "data.labels=false", "shape=none"]
    words += ["train.images=32", "train.sheet_every=16"]
    run = train(override(short, words), tmp_path / "run", quiet=True)
    sheets = sorted((run.path / "sheets").glob("*.png"))
    assert sheets
    with Image.open(sheets[-1]) as picture:
        assert picture.mode == "L" and picture.width == drawing.COLUMNS * (8 * channels + 2) + 2
    drawn = tile(torch.from_numpy(images[:1].transpose(0, 3, 1, 2).copy()), 1)
    assert np.array_equal(drawn[2:10, 2 + 8 * (channels - 1) : 2 + 8 * channels], images[0, :, :, -1])
