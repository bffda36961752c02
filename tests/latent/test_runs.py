"""Runs of an autoencoder, of a model on its latents, and of both together: resumed, sampled, judged, refused."""

from __future__ import annotations

import json
import shutil
from collections import deque
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.codelength.latents import bits_of_pixels
from sfumato.codelength.result import Asked, likelihood
from sfumato.core.find import find_named
from sfumato.core.images import to_float, to_uint8
from sfumato.core.level import Level
from sfumato.core.noise import normal
from sfumato.data import load
from sfumato.data.streaming import loader_for
from sfumato.evaluation import evaluate
from sfumato.latent.space import Latents
from sfumato.recipes.latents import autoencoder_digits, latent_dit_xl2_imagenet256, latent_edm_digits, lsgm_digits
from sfumato.restoration import measured, method_of, restore
from sfumato.runs.check import check
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Latent, Recipe, RecipeError, Shape
from sfumato.runs.run import Run
from sfumato.tasks.inpaint import inpaint
from sfumato.training.latents import Encoded, _encode, batches_of, encoded, standardised
from sfumato.training.loop import train

COMMON = (
    *("data.first=96", "train.optimizer=adam", "train.batch=16", "train.images=160", "train.precision=fp32"),
    *("train.rate=constant", "train.sheet_every=1000000", "train.log_every=32", "ema.power=0.10"),
    *("ema.use=power-0.10", "evaluate.n=60"),
)
CODER = (*COMMON, "network.width=8")
PRIOR = (
    *COMMON,
    "network.width=16",
    "network.mult=1,1",
    "network.blocks=1",
    "network.embedding=32",
    "sample.grid.steps=3",
)
JOINT = (*CODER, "network.prior=16", "network.prior_mult=1,1", "network.prior_blocks=1", "network.embedding=32",
         "sample.grid.steps=3", "objective.warmup=64")  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("latent")


@pytest.fixture(scope="module")
def coder(folder: Path) -> Run:
    return train(override(autoencoder_digits(), CODER), folder / "coder", quiet=True, device="cpu")


def on(coder: Run, *more: str) -> Recipe:
    return override(latent_edm_digits(), [*PRIOR, f"data.latent={coder.path}", "data.flip=true", *more])


@pytest.fixture(scope="module")
def staged(coder: Run, folder: Path) -> Run:
    return train(on(coder), folder / "staged", quiet=True, device="cpu")


@pytest.fixture(scope="module")
def joint(folder: Path) -> Run:
    return train(override(lsgm_digits(), JOINT), folder / "joint", quiet=True, device="cpu")


def records(run: Run) -> list[dict[str, object]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


def test_an_autoencoder_is_trained_judged_and_drawn(coder: Run) -> None:
    last = records(coder)[-1]
    assert last["loss"] == pytest.approx(last["reconstruction"] + last["kl"], rel=1e-4)
    assert (coder.path / "sheets" / "000000160.png").exists()
    result = evaluate(coder, m=120, quiet=True, device="cpu")
    (row,) = result.tables["reconstruction"]
    assert row["bits a number"]["value"] == pytest.approx(row["nats an image"]["value"] / (64 * 0.693147), rel=1e-4)
    assert row["bits/dim[VAE]"]["value"] > row["bits a number"]["value"]
    (score,) = result.scores
    assert score.floor is not None and score.value > score.floor.value
    with pytest.raises(ValueError, match="trained an autoencoder, which makes none. Ask for --metrics reconstruction"):
        evaluate(coder, metrics=("fd",))
    with pytest.raises(RecipeError, match="train a denoiser on its latents with data.latent="):
        coder.denoiser()


def test_decoding_and_encoding_do_not_depend_on_the_batch(coder: Run) -> None:
    images, model = to_float(load("digits", split="test").images[:12]), coder.autoencoder()
    with torch.no_grad():
        whole = model(images)
        alone = torch.cat([model(image[None]) for image in images])
    torch.testing.assert_close(alone, whole, rtol=0, atol=2e-6)  # GroupNorm's statistics are an image's own
    assert torch.equal(to_uint8(alone), to_uint8(whole))


def test_a_bound_does_not_depend_on_the_batch(coder: Run) -> None:
    """The noise of image i is its own, so many small batches judge as one large one."""
    sizes = (7, 64)
    runs = [coder.with_recipe(override(coder.recipe, [f"sample.batch={size}"])) for size in sizes]
    few, many = (evaluate(run, m=60, quiet=True, device="cpu").tables["reconstruction"][0] for run in runs)
    for name in ("PSNR in dB", "nats an image", "bits/dim[VAE]"):
        assert few[name]["value"] == pytest.approx(many[name]["value"], rel=1e-6)


def test_latents_are_scaled_and_their_coder_is_kept_by_hash(coder: Run, staged: Run) -> None:
    latent = staged.recipe.latent
    assert latent is not None and latent.weights == coder.checkpoint.digest("ema-power-0.10")
    assert (latent.channels, latent.factor, len(latent.scale)) == (2, 2, 2) and staged.recipe.sigma_data == 1
    images = to_float(load("digits", first=96).images)
    space = staged.space()
    assert isinstance(space, Latents) and space.shape == (2, 4, 4) and space.image == (1, 8, 8)
    with torch.no_grad():
        both = torch.cat((images, images.flip(-1)))
        posterior = coder.autoencoder().encode(both)
        z = space.standardised(posterior.mean)
        spread = (0.5 * posterior.log_var).exp() / torch.tensor(latent.scale).reshape(-1, 1, 1)
    per_channel = z.transpose(0, 1).flatten(1)
    torch.testing.assert_close(per_channel.mean(1), torch.zeros(2), rtol=0, atol=1e-4)
    variance = per_channel.var(1, correction=0) + spread.square().transpose(0, 1).flatten(1).mean(1)
    torch.testing.assert_close(variance, torch.ones(2), rtol=0, atol=1e-4)


def test_latents_that_were_damaged_on_disk_are_encoded_anew(staged: Run, tmp_path: Path, monkeypatch) -> None:
    """And a batch of them is mirrored where a batch of images is, by the one rule of the loader."""
    data, encodings = load("digits", first=96), []
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr("sfumato.training.latents._encode", lambda *asked: encodings.append(1) or _encode(*asked))
    first = encoded(staged.recipe, data, staged.path, torch.device("cpu"))
    (file,) = (tmp_path / "sfumato" / "latents").glob("*.npy")
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 64
    file.write_bytes(raw)
    again = encoded(staged.recipe, data, staged.path, torch.device("cpu"))
    assert len(encodings) == 2 and torch.equal(first.means, again.means) and torch.equal(first.log_vars, again.log_vars)
    loader = loader_for(data, 3, "cpu", flip=True)
    mirrored = loader.mirrored(torch.arange(40, 72))
    x, label, positions = batches_of(override(staged.recipe, ["train.seed=3"]), again, torch.device("cpu")).batch(
        40, 32
    )
    rows = again.means[mirrored.long(), loader.order(torch.arange(40, 72))]
    n = normal(positions, x.shape[1:], seed=3, purpose="posterior")
    spread = (0.5 * again.log_vars[mirrored.long(), loader.order(positions)]).exp()
    shift, scale = (torch.tensor(v).reshape(-1, 1, 1) for v in (staged.recipe.latent.shift, staged.recipe.latent.scale))
    assert 0 < mirrored.sum() < 32
    torch.testing.assert_close(x, (rows + spread * n - shift) / scale)
    images = loader.batch(40, 32)
    plain = loader_for(data, 3, "cpu").batch(40, 32)[0]
    assert torch.equal(images[0], torch.where(mirrored[:, None, None, None], plain.flip(-1), plain))
    assert torch.equal(label, images[1])


@pytest.mark.parametrize("which", ["staged", "joint"])
def test_images_are_decoded_wherever_they_are_asked_for(which: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(which)
    source = run.diffusion()
    labels = torch.arange(4)
    states = list(source.states(range(4), labels))
    assert {state.x.shape for state in states} == {(4, 1, 8, 8)} == {state.x0.shape for state in states}
    assert torch.equal(states[-1].x, source.floats(range(4), labels))
    raw = deque(source.steps(source.noise(range(4)).start(), source.noise(range(4)), labels), maxlen=1)[0].x
    assert raw.shape == (4, 2, 4, 4) and torch.equal(source.space.decode(raw), states[-1].x)
    assert source.begin([0]).shape == (1, 1, 8, 8)
    large = run.with_recipe(override(run.recipe, ["sample.size=12"])).diffusion()
    assert large([0], labels[:1]).shape == (1, 1, 12, 12)
    with pytest.raises(RecipeError, match="multiples of 2; got 9x9. Nearest valid heights: 8, 10"):
        run.with_recipe(override(run.recipe, ["sample.size=9"])).diffusion()
    assert torch.equal(source.space.picture(raw, Level.clean()), states[-1].x)


def test_a_latent_run_restores_by_the_method_that_takes_any_task(staged: Run) -> None:
    truth = to_float(load("digits", split="test").images[:2])
    task = inpaint((1, 8, 8))
    y = measured(task, truth, [0, 1])
    found = restore(staged.diffusion(), task, y, method_of("dps"), samples=2, sigma_data=1.0)
    assert found.samples.shape == (2, 2, 1, 8, 8)
    torch.testing.assert_close(task.apply(found.samples[:, 0]), y, rtol=0, atol=1e-5)
    with pytest.raises(ValueError, match="of decoded latents is not one. Use method dps"):
        restore(staged.diffusion(), task, y, method_of("ddnm"), samples=1)


@pytest.mark.parametrize("which", ["staged", "joint"])
def test_bits_of_pixels_are_bounded_term_by_term(which: str, request: pytest.FixtureRequest) -> None:
    run: Run = request.getfixturevalue(which)
    tree, _ = bits_of_pixels(run, Asked(n=8, splits=("test",), steps=4), device="cpu")
    (row,) = tree["tables"]["likelihood"]
    parts = [row[name]["value"] for name in ("-log2 P(x|z)", "-H(q)", "cross entropy of the prior")]
    assert row["bits/dim (bound)"]["value"] == pytest.approx(sum(parts), rel=1e-6)
    assert tree["scores"][0]["name"] == "bits/dim[latent]"
    with pytest.raises(RecipeError, match="a density of latents and none of pixels. Ask for the bound, --parts vlb"):
        bits_of_pixels(run, Asked(n=8, parts=("ode",)), device="cpu")
    with pytest.raises(RecipeError, match="works on pixels"):
        likelihood(run, Asked(n=8), device="cpu")


def test_a_joint_run_logs_its_terms(joint: Run) -> None:
    last = records(joint)[-1]
    total = last["reconstruction"] + last["cross_entropy"] - last["entropy"] + last["prior"]
    assert last["loss"] == pytest.approx(total, rel=1e-4)  # the weight has risen to 1
    assert (joint.path / "sheets" / "reconstructions" / "000000160.png").exists()
    assert (joint.path / "sheets" / "000000160.png").exists()
    with torch.no_grad():
        assert joint.autoencoder()(torch.zeros(1, 1, 8, 8)).shape == (1, 1, 8, 8)


@pytest.mark.parametrize("which", ["coder", "staged", "joint"])
def test_a_run_resumes_bit_for_bit(which: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    whole: Run = request.getfixturevalue(which)
    half = override(replace(whole.recipe, latent=None), ["train.images=80"])
    train(half, tmp_path / "run", quiet=True, device="cpu")
    again = train(
        replace(whole.recipe, latent=None), tmp_path / "run", quiet=True, device="cpu", allow=("train.images",)
    )
    for group, tensors in whole.checkpoint.tensors.items():
        for name, tensor in tensors.items():
            assert torch.equal(tensor, again.checkpoint.tensors[group][name]), (group, name)


def test_a_coder_that_is_gone_or_changed_is_refused_with_both_hashes(staged: Run, coder: Run, tmp_path: Path) -> None:
    moved = tmp_path / "runs"
    shutil.copytree(staged.path, moved / "staged")
    wanted = staged.recipe.latent.weights[:16]
    lost = Run.open(moved / "staged")
    lost = lost.with_recipe(override(lost.recipe, ["data.latent=nowhere/coder"]))
    with pytest.raises(RecipeError, match=f"autoencoder {wanted}, and data.latent=nowhere/coder holds nothing"):
        lost.diffusion()
    shutil.copytree(coder.path, moved / "coder")  # beside the run it is found again
    assert torch.equal(lost.source()([0], torch.tensor([1])), staged.source()([0], torch.tensor([1])))
    train(override(autoencoder_digits(), [*CODER, "train.seed=1"]), tmp_path / "other", quiet=True, device="cpu")
    other = Run.open(tmp_path / "other").checkpoint.digest("ema-power-0.10")[:16]
    swapped = staged.with_recipe(override(staged.recipe, [f"data.latent={tmp_path / 'other'}"]))
    with pytest.raises(RecipeError, match=f"autoencoder {wanted}.*holds {other}. Restore that run"):
        swapped.diffusion()


def test_a_coder_beside_its_run_is_taken_whatever_stands_where_it_was(staged: Run, coder: Run, tmp_path: Path) -> None:
    for name, run in {"staged": staged, "was": staged, "now/was": coder, "now/staged": staged}.items():
        shutil.copytree(run.path, tmp_path / name)
    moved = Run.open(tmp_path / "now" / "staged")
    moved = moved.with_recipe(override(moved.recipe, [f"data.latent={tmp_path / 'was'}"]))
    assert moved.encoder_run()[0].path == tmp_path / "now" / "was"
    (tmp_path / "was" / "recipe.json").write_text("{")
    assert moved.encoder_run()[0].path == tmp_path / "now" / "was"
    alone = replace(moved, path=tmp_path / "staged")
    with pytest.raises(RecipeError, match="recipe.json is damaged"):
        alone.encoder_run()


@pytest.mark.parametrize("lost", [("shift",), ("scale",), ("shift", "scale")])
def test_latents_without_their_scale_are_not_decoded(lost: tuple[str, ...], staged: Run) -> None:
    """They would be decoded as if they had mean 0 and variance 1: another image, and no word of it."""
    assert staged.recipe.latent is not None
    latent = replace(staged.recipe.latent, **dict.fromkeys(lost, ()))
    with pytest.raises(RecipeError, match="latent.shift and latent.scale.*Restore the recipe"):
        staged.with_recipe(replace(staged.recipe, latent=latent)).diffusion()


def test_a_channel_whose_scale_is_zero_in_six_decimals_is_refused(staged: Run) -> None:
    data = load("digits", first=8)
    means = torch.randn(1, 8, 2, 4, 4) * torch.tensor([1.0, 1e-7]).reshape(2, 1, 1)
    assert staged.recipe.latent is not None
    recipe = replace(staged.recipe, latent=replace(staged.recipe.latent, shift=(), scale=()))
    with pytest.raises(RecipeError, match="channel 1 of its latents is the same for every"):
        standardised(recipe, Encoded(data, means, None))


def test_what_cannot_be_trained_on_latents_is_refused_before_training(coder: Run, tmp_path: Path) -> None:
    def refused(recipe: Recipe, match: str) -> None:
        with pytest.raises(RecipeError, match=match):
            train(recipe, tmp_path / "run", quiet=True, device="cpu")
        assert not (tmp_path / "run" / "metrics.jsonl").exists()

    refused(on(coder, "data.latent=nowhere"), "data.latent=nowhere is not a run .no recipe.json.. Train an autoencoder")
    refused(replace(on(coder), latent=Latent(3, 2)), "is for latents of 3 channels at 1/2 of the side.*makes 2 at 1/2")
    refused(override(on(coder), ["data.pad=9"]), "multiples of 2; got 9x9. Nearest valid heights: 8, 10; widths: 8, 10")
    refused(override(autoencoder_digits(), [*CODER, "data.pad=9"]), "size must be a multiple of 2 .factor 2.; got 9")
    gan = override(on(coder), ["network=dcgan", "network.latent=8", "network.up=8", "network.down=8", "objective=gan"])
    refused(gan, "data.latent=.* gives latents in place of images.*set data.latent=none|needs images")
    refused(override(on(coder), ["data.latent=" + str(coder.path), "data.augment=0.1", "network=songunet"]), "augment")
    refused(override(autoencoder_digits(), [*CODER, "objective=denoising"]), "trains a denoiser")


def test_a_coder_without_noise_has_latents_and_no_bound(tmp_path: Path) -> None:
    plain = train(override(autoencoder_digits(), [*CODER, "network.noisy=false"]), tmp_path / "plain", quiet=True)
    last = records(plain)[-1]
    assert last["kl"] == 0 and last["loss"] == pytest.approx(last["reconstruction"])
    (row,) = evaluate(plain, m=60, quiet=True, device="cpu").tables["reconstruction"]
    assert "nats an image" not in row and row["PSNR in dB"]["value"] > 0
    run = train(on(plain, "train.images=32"), tmp_path / "run", quiet=True)
    with pytest.raises(RecipeError, match="its autoencoder has no posterior q.z | x."):
        bits_of_pixels(run, Asked(n=8), device="cpu")


def test_the_paper_scale_sibling_is_built_and_counted_without_its_coder() -> None:
    made = plan(latent_dit_xl2_imagenet256())
    check(made)
    assert made.image == (4, 32, 32) and round(made.cost.parameters / 1e6) == 675
    assert made.cost.network.gmac == pytest.approx(118.6, rel=0.01)  # Peebles and Xie 2023, table 4
    stated = replace(latent_edm_digits(), shape=Shape(1, 8, 8, tuple("0123456789")))
    check(plan(stated))


@pytest.mark.parametrize("kind", ["interpolation", "reconstruction", "shared-latent"])
def test_a_coder_has_no_walk_to_draw(coder: Run, kind: str) -> None:
    """Not that the sampler of the picture would change nothing."""
    with pytest.raises(RecipeError, match="trained an autoencoder, not a denoiser. It codes images and draws none"):
        find_named("picture", kind)(coder)
