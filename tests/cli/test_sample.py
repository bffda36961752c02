"""``sfumato sample``: pictures, one file a seed that survives a kill, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from sfumato.core.images import NonFiniteError
from sfumato.progress import bar_of
from sfumato.report import seed_folder, signature
from sfumato.report.save import command_in, description
from sfumato.restoration import resampled
from sfumato.runs.run import Run
from sfumato.sources import watched


def pixels(folder: Path) -> dict[str, bytes]:
    return {path.name: Image.open(path).tobytes() for path in sorted(folder.glob("seed-*.png"))}


def test_a_sheet_has_a_row_per_class_and_says_what_made_it(labelled: Path, cli) -> None:
    said = cli("sample", labelled, "--steps", 2, "--guidance", 2, "--device", "cpu")
    assert said.code == 0, said.err
    path = Path(said.out.partition("\nNext:")[0].splitlines()[-1].strip())
    assert path.parent == labelled / "samples" and path.name == "000000128-heun-karras-2-w2.png"
    words = description(path)
    assert "Uncurated, seeds 0..79." in words and "heun on karras(steps=2), guidance 2, 128 training images" in words


def test_a_caption_and_a_file_name_tell_all_that_guides(labelled: Path, cli) -> None:
    words = ["--guidance", 2, "--interval", "0.2,5", "--autoguidance", "@raw", "--threshold", "dynamic", "--use", "raw"]
    said = cli("sample", labelled, *words, "--n", 10, "--device", "cpu")
    path = Path(said.out.partition("\nNext:")[0].splitlines()[-1].strip())
    assert path.name == "000000128-heun-karras-3-auto2-@raw-nsr0.2..5-w2-nsr0.2..5-dynamic0.995-raw.png", said.err
    assert description(path).endswith(
        "heun on karras(steps=3), autoguidance 2 by @raw at nsr 0.2..5, guidance 2 at nsr 0.2..5, "
        "dynamic threshold 0.995, 128 training images, weights raw."
    )


def test_strip_and_animation_lie_beside_the_sheet(labelled: Path, tmp_path: Path, cli) -> None:
    words = ["--classes", "3,0", "--n", 4, "--strip", "--gif", "--out", tmp_path / "a.png", "--device", "cpu"]
    said = cli("sample", labelled, *words)
    assert said.code == 0, said.err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a-strip.png", "a.gif", "a.png"]
    assert "Seeds 0..3, 3 steps" in description(tmp_path / "a-strip.png")
    with Image.open(tmp_path / "a.gif") as animation:
        assert animation.n_frames == 4  # type: ignore[attr-defined]


def test_both_forms_of_an_option_make_the_same_images(labelled: Path, tmp_path: Path, cli) -> None:
    forms = {
        "a": ["--sampler", "ddim", "--steps", "2", "--guidance", "1.5", "sampler.eta=1"],
        "b": ["sample.sampler=ddim", "--sample.sampler.eta", "1", "grid.steps=2", "--sample.guidance=1.5"],
    }
    for name, words in forms.items():
        said = cli("sample", labelled, *words, "--n", 3, "--images", tmp_path / name, "--device", "cpu")
        assert said.code == 0, said.err
    assert pixels(tmp_path / "a") == pixels(tmp_path / "b")
    assert len(pixels(tmp_path / "a")) == 3


def test_an_image_depends_on_its_seed_and_class_alone(labelled: Path, tmp_path: Path, cli) -> None:
    words = ["sample", labelled, "--guidance", 20, "--device", "cpu"]  # after two steps classes differ by little
    cli(*words, "--classes", 7, "--seeds", "0:6", "--images", tmp_path / "many")
    cli(*words, "--classes", 7, "--seeds", "4", "--images", tmp_path / "one")
    cli(*words, "--classes", 0, "--seeds", "4", "--images", tmp_path / "other")
    name = "seed-000000004.png"
    many, one, other = (
        torch.frombuffer(bytearray(pixels(tmp_path / folder)[name]), dtype=torch.uint8).int()
        for folder in ("many", "one", "other")
    )
    assert int((many - one).abs().max()) <= 1  # the batch's rounding
    assert int((many - other).abs().max()) > 1  # class 0 is a class, not "no class"


class Dies:
    """A source that is killed at its k-th batch."""

    def __init__(self, source, after: int) -> None:
        self.source, self.after, self.batch, self.quantisation = source, after, source.batch, source.quantisation

    def floats(self, seeds: Sequence[int], labels: Tensor | None) -> Tensor:
        if self.after == 0:
            raise KeyboardInterrupt
        self.after -= 1
        return self.source.floats(seeds, labels)


def test_a_killed_sampling_makes_only_what_is_missing_and_equals_an_uninterrupted_one(
    labelled: Path, tmp_path: Path
) -> None:
    """P16."""
    source = Run.open(labelled).source()
    source.batch = 8
    labels = torch.arange(20) % 10
    assert seed_folder.fill(tmp_path / "whole", source, range(20), labels, {"a": 1}) == 20
    with pytest.raises(KeyboardInterrupt):
        seed_folder.fill(tmp_path / "killed", Dies(source, 2), range(20), labels, {"a": 1})  # type: ignore[arg-type]
    assert len(pixels(tmp_path / "killed")) == 16
    damaged = tmp_path / "killed" / "seed-000000003.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    (tmp_path / "killed" / "seed-000000005.png").unlink()
    kept = (tmp_path / "killed" / "seed-000000009.png").stat().st_mtime_ns
    assert seed_folder.fill(tmp_path / "killed", source, range(20), labels, {"a": 1}) == 4 + 2
    assert pixels(tmp_path / "killed") == pixels(tmp_path / "whole")
    assert (tmp_path / "killed" / "seed-000000009.png").stat().st_mtime_ns == kept
    assert not list((tmp_path / "killed").glob("*.tmp"))


def test_an_entry_carries_what_made_it_and_a_changed_pixel_is_noticed(labelled: Path, tmp_path: Path, cli) -> None:
    words = ["sample", labelled, "--n", 2, "--classes", "5", "--images", tmp_path / "a", "--device", "cpu"]
    assert "2 images written, 0 were there" in cli(*words).out
    path = tmp_path / "a" / "seed-000000001.png"
    with Image.open(path) as picture:
        carried = json.loads(picture.info["sfumato"])
        changed, info = picture.copy(), picture.info["sfumato"]
    assert (carried["seed"], carried["label"]) == (1, 5)
    assert json.loads(carried["settings"])["sample"]["sampler"]["name"] == "heun"
    assert description(path) == "heun on karras(steps=3), 128 training images, weights power-0.10."
    changed.putpixel((0, 0), 255 - changed.getpixel((0, 0)))  # type: ignore[operator]
    words_of = PngInfo()
    words_of.add_text("sfumato", info)
    changed.save(path, pnginfo=words_of)
    assert "1 images written, 1 were there" in cli(*words).out


def test_a_folder_of_other_settings_is_refused_and_left_alone(labelled: Path, tmp_path: Path, cli) -> None:
    words = ["sample", labelled, "--n", 2, "--images", tmp_path / "a", "--device", "cpu"]
    cli(*words)
    before = pixels(tmp_path / "a")
    said = cli(*words, "--steps", 5)
    assert said.code == 2 and "sample.grid.options.steps: 3 -> 5" in said.err
    assert pixels(tmp_path / "a") == before


class Broken:
    """A source whose seed 2 is not finite."""

    batch, quantisation = 4, "round"

    def floats(self, seeds: Sequence[int], labels: Tensor | None) -> Tensor:
        images = torch.zeros(len(seeds), 1, 4, 4)
        images[[seed == 2 for seed in seeds], 0, 1, 1] = float("nan")
        return images


def test_an_image_that_is_not_finite_is_counted_and_never_written(tmp_path: Path) -> None:
    """P19."""
    with pytest.raises(NonFiniteError, match=r"1 of 6 images hold NaN or infinity and were not written \(seeds \[2\]"):
        seed_folder.fill(tmp_path, Broken(), range(6), None, {})  # type: ignore[arg-type]
    assert sorted(pixels(tmp_path)) == [f"seed-{seed:09d}.png" for seed in (0, 1, 3, 4, 5)]


@pytest.fixture
def poisoned(labelled: Path, tmp_path: Path) -> Path:
    """A run whose averaged weights hold a NaN, saved as a whole checkpoint."""
    from sfumato.runs import checkpoint

    run = Run.open(labelled)
    saved = run.checkpoint
    tensors = {stem: {k: v.clone() for k, v in group.items()} for stem, group in saved.tensors.items()}
    next(iter(tensors[f"ema-{run.recipe.ema.use}"].values())).fill_(float("nan"))
    folder = tmp_path / "poisoned"
    folder.mkdir()
    (folder / "recipe.json").write_text((labelled / "recipe.json").read_text())
    with pytest.MonkeyPatch.context() as patch:  # as an earlier version could save it
        patch.setattr(checkpoint, "not_finite", lambda groups: "")
        checkpoint.save(folder / "checkpoints", 2, tensors, {k: v for k, v in saved.state.items() if k != "belongs"})
    return folder


def test_weights_with_a_nan_make_no_picture(poisoned: Path, cli) -> None:
    """P19."""
    for words in (["--strip"], ["--images", poisoned / "images"]):
        said = cli("sample", poisoned, "--n", 4, "--device", "cpu", *words)
        assert said.code == 2
        assert "is not taken" in said.err and "is not finite" in said.err and "Traceback" not in said.err
    assert not list(poisoned.rglob("*.png"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--classes", "10"], "Labels lie in [0, 10) (or -1 for no class); got 10 to 10"),
        (["--classes", "-2"], "Labels lie in [0, 10)"),
        (["--classes", "seven"], "Unknown class 'seven'"),
        (["--sampler", "huen"], "Unknown sampler 'huen'. Did you mean 'heun'?"),
        (["--grid", "karas"], "Unknown grid 'karas'. Did you mean 'karras'?"),
        (["--sampler.chrun", "3"], "Did you mean 'churn'?"),
        (["--steps", "0"], "sample.grid.steps must be at least 1; got 0"),
        (["--steps", "many"], "many"),
        (["--grid", "full"], "needs 'table', which this recipe does not have"),
        (["--guidance", "big"], "big"),
        (["--use", "power-0.5"], "Unknown average 'power-0.5'"),
        (["--use", ""], "Unknown average ''"),
        (["train.batch=3"], "train.batch belongs to training"),
        (["--train.batch", "3"], "train.batch belongs to training"),
        (["--seeds", "5:2"], "Seeds read 0:64"),
        (["--n", "0"], "n must be at least 1"),
        (["--out", "picture.jpg"], "Pictures are written as PNG"),
        (["--guidanse", "3"], "Did you mean '--guidance'?"),
    ],
)
@pytest.mark.parametrize("to", ["sheet", "images"])
def test_bad_input_is_one_clear_message(
    words: list[str], message: str, to: str, labelled: Path, tmp_path: Path, cli
) -> None:
    if to == "images" and words[0] == "--out":
        pytest.skip("a picture's name does not matter to --images")
    more = ["--images", tmp_path / "images"] if to == "images" else ["--out", tmp_path / "sheet.png"]
    more = [] if words[0] == "--out" else more
    said = cli("sample", labelled, "--device", "cpu", *more, *words)
    assert said.code == 2, said
    assert message in said.err and "Traceback" not in said.err
    assert not list(tmp_path.rglob("*.png"))


def test_labels_and_guidance_are_refused_by_an_unlabelled_model(unlabelled: Path, cli) -> None:
    for words in (["--classes", "3"], ["--classes", "bag"], ["--classes", "-1"]):
        said = cli("sample", unlabelled, *words, "--device", "cpu")
        assert said.code == 2 and "trained without labels, so it takes none" in said.err
    said = cli("sample", unlabelled, "--guidance", 2, "--device", "cpu")
    assert said.code == 2 and "Guidance needs a class-conditional model" in said.err
    said = cli("sample", unlabelled, "--n", 3, "--device", "cpu")
    assert said.code == 0


def test_a_place_that_is_no_run_or_has_no_checkpoint_is_named(labelled: Path, tmp_path: Path, cli) -> None:
    said = cli("sample", tmp_path)
    assert said.code == 2 and f"{tmp_path} is not a run" in said.err
    (tmp_path / "recipe.json").write_text((labelled / "recipe.json").read_text())
    said = cli("sample", tmp_path)
    assert said.code == 2 and "has no checkpoint yet; train it first" in said.err
    said = cli("sample", tmp_path.parent)
    assert said.code == 2 and f"Did you mean {tmp_path}" in said.err
    said = cli("sample", f"{tmp_path}x")
    assert said.code == 2 and f"Did you mean {tmp_path}?" in said.err


def test_a_truncated_checkpoint_is_passed_over_loudly(labelled: Path, tmp_path: Path, cli) -> None:
    """P5, as a person sees it."""
    import shutil

    run = tmp_path / "run"
    shutil.copytree(labelled, run)
    shutil.copytree(run / "checkpoints/step-2", run / "checkpoints/step-9")
    damaged = run / "checkpoints/step-9/network.safetensors"
    damaged.write_bytes(damaged.read_bytes()[: damaged.stat().st_size // 2])
    said = cli("sample", run, "--n", 2, "--device", "cpu")
    assert said.code == 0
    assert "warning: DAMAGED CHECKPOINT" in said.err and str(damaged) in said.err
    shutil.rmtree(run / "checkpoints/step-2")
    said = cli("sample", run, "--n", 2, "--device", "cpu")
    assert said.code == 2 and "Every checkpoint" in said.err


# make a signed picture again


@pytest.fixture
def entry(labelled: Path, tmp_path: Path, cli) -> Path:
    words = ["--seeds", "5", "--classes", "3", "--sampler", "ddim", "--device", "cpu"]
    cli("sample", labelled, *words, "--images", tmp_path)
    return tmp_path / "seed-000000005.png"


def test_a_picture_is_made_again_pixel_for_pixel(labelled: Path, entry: Path, tmp_path: Path, cli) -> None:
    said = cli("sample", labelled, "--like", entry, "--out", tmp_path / "x" / "again.png", "--device", "cpu")
    assert (said.code, "the same, pixel for pixel" in said.out) == (0, True)
    old, new = signature.read(entry), signature.read(tmp_path / "x" / "again.png")
    assert old[0].tobytes() == new[0].tobytes() and old[1] == new[1]


def test_a_picture_that_cannot_be_made_again_is_refused_with_the_reason(
    labelled: Path, unlabelled: Path, entry: Path, tmp_path: Path, cli
) -> None:
    with Image.open(entry) as picture:
        text = picture.info["sfumato"]
        picture.save(tmp_path / "plain.png")
        changed = picture.copy()
    changed.putpixel((0, 0), 255 - changed.getpixel((0, 0)))  # type: ignore[operator]
    info = PngInfo()
    info.add_text("sfumato", text)
    changed.save(tmp_path / "changed.png", pnginfo=info)
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.png").write_bytes(entry.read_bytes()[:120])
    for run, like, words in (
        (unlabelled, entry, "Name the run that made it"),
        (labelled, tmp_path / "plain.png", "does not say how it was made"),
        (labelled, tmp_path / "changed.png", "changed after it was made"),
        (labelled, tmp_path / "text.png", "is not a PNG"),
        (labelled, tmp_path / "cut.png", "damaged"),
        (labelled, tmp_path / "gone.png", "No such file"),
    ):
        said = cli("sample", run, "--like", like, "--device", "cpu")
        assert said.code == 2 and words in said.err and "Traceback" not in said.err, said
    said = cli("sample", labelled, "--like", entry, "--guidance", 2, "--device", "cpu")
    assert said.code == 2 and "--like takes every setting from the picture" in said.err


@pytest.mark.parametrize("times", [1, 2])
def test_the_bar_moves_with_every_step_of_every_image(times: int, labelled: Path) -> None:
    """Two blocks of 12 images: each step moves the bar by its share of the block, and the images stay as they are."""

    class Bar:
        total, n = 24, 0
        seen: list[int] = []

        def update(self, count: int) -> None:
            assert count >= 0
            self.n += count
            self.seen.append(self.n)

    source, bar = Run.open(labelled).diffusion(), Bar()
    source.batch, bar.seen = 12, []
    source.sampler = resampled(source.sampler, times)  # which walks every step so many times
    maker, finished = watched(source, bar)
    assert torch.equal(maker(range(24), progress=finished), source(range(24)))
    steps = len(source.grid) - 1
    assert steps == 3 and sorted({*bar.seen}) == [4, 8, 12, 16, 20, 24] and len(bar.seen) == 2 * (times * steps + 1)


def test_long_work_reports_to_a_pipe_and_short_work_does_not(capfd: pytest.CaptureFixture[str]) -> None:
    for delay, said in ((None, False), (0.0, True)):
        with bar_of(3, "img", "sampling", **({} if delay is None else {"delay": delay, "mininterval": 0.0})) as bar:
            for _ in range(3):
                bar.update(1)
        assert ("sampling" in capfd.readouterr().err) == said


def test_scale_draws_at_a_higher_resolution_and_ends_with_its_command(labelled: Path, tmp_path: Path, cli) -> None:
    sizes = []
    for name, more in (("a", []), ("b", ["--scale", 2]), ("c", ["--scale=1"])):
        said = cli("sample", labelled, "--n", 8, *more, "-o", tmp_path / f"{name}.png", "--device", "cpu")
        assert said.code == 0, said.err
        with Image.open(tmp_path / f"{name}.png") as picture:
            sizes.append(picture.size)
    assert sizes[0] == sizes[2] and abs(sizes[1][0] - 2 * sizes[0][0]) < 0.05 * sizes[1][0]
    assert command_in(tmp_path / "b.png").startswith(f"sfumato sample {labelled} --n 8 --scale 2")
    for wrong in ("0", "two", "9", "-1"):
        said = cli("sample", labelled, "--scale", wrong)
        assert said.code == 2 and "--scale is a whole number from 1 to 4" in said.err
    assert "--scale is given twice" in cli("sample", labelled, "--scale", 2, "--scale=3").err
