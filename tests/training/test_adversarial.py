"""The trainer of a GAN: resume is exact, each side moves alone, bad steps change nothing, runs sample like others."""

from __future__ import annotations

import json

import pytest
import torch

from sfumato.networks._spectral import power_states
from sfumato.recipes.gans import dcgan_digits, sngan_digits
from sfumato.runs.check import check
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import RecipeError
from sfumato.runs.resolve import load_data, resolve
from sfumato.training.adversarial import AdversarialTrainer
from sfumato.training.loop import train

CPU = torch.device("cpu")
TINY = (
    *("data.first=96", "network.up=[8]", "network.down=[8]", "network.latent=8", "train.batch=16", "train.images=320"),
    *("objective.noise=0.2", "objective.fake=0.1", "train.sheet_every=1000000", "train.log_every=48"),
)


@pytest.fixture
def recipe():
    return override(dcgan_digits(), TINY)


def trainer_of(recipe):
    data = load_data(recipe, "train")
    return AdversarialTrainer(plan(resolve(recipe, data)), data, CPU)


def copied(tensors):
    return {g: {k: v.clone() for k, v in group.items()} for g, group in tensors.items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[g][k], b[g][k]) for g in a for k in a[g])


def log_of(path):
    records = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if k not in ("seconds", "spent")} for r in records]


def test_resume_is_bit_exact(recipe, tmp_path):
    """20 steps equal 10 + resume + 10: both sides, both optimisers, the average, and the log, mid-interval."""
    recipe = override(recipe, ["objective.noise=0"])  # annealed noise follows the budget, which differs here
    straight = train(recipe, tmp_path / "a", quiet=True, device="cpu")
    train(override(recipe, ["train.images=160"]), tmp_path / "b", quiet=True, device="cpu")
    resumed = train(recipe, tmp_path / "b", quiet=True, device="cpu", allow=("train.images",))
    assert straight.checkpoint.state["step"] == resumed.checkpoint.state["step"] == 20
    assert same(straight.checkpoint.tensors, resumed.checkpoint.tensors)
    assert log_of(tmp_path / "a")[-1] == log_of(tmp_path / "b")[-1]


@pytest.fixture
def spectral():
    small = ["network.up=[8]", "network.down=[8]", "network.latent=8", "network.flat=0"]
    return override(sngan_digits(), [*small, *TINY[:1], "train.batch=16", "train.images=160", *TINY[-2:]])


def test_a_gradient_of_single_images_is_refused_where_batch_norm_mixes_them(recipe):
    recipe = override(recipe, ["network.up=[8,8]", "network.down=[8,8]", "objective.r1=1"])
    shaped = resolve(recipe, load_data(recipe, "train"))
    with pytest.raises(RecipeError, match="BatchNorm in the discriminator mixes images.*network.norm=spectral"):
        check(plan(shaped))
    check(plan(override(shaped, ["network.norm=plain"])))


def test_the_directions_of_spectral_layers_are_saved_and_resumed(spectral, tmp_path):
    straight = train(spectral, tmp_path / "a", quiet=True, device="cpu")
    train(override(spectral, ["train.images=80"]), tmp_path / "b", quiet=True, device="cpu")
    resumed = train(spectral, tmp_path / "b", quiet=True, device="cpu", allow=("train.images",))
    assert any(name.endswith(".u") for name in straight.checkpoint.tensors["network"])
    assert same(straight.checkpoint.tensors, resumed.checkpoint.tensors)


def test_a_step_that_is_left_out_leaves_the_directions(spectral, monkeypatch):
    trainer = trainer_of(spectral)
    trainer.advance(0.0)
    before = [u.clone() for u in power_states(trainer.network)]
    monkeypatch.setattr(trainer.loader, "batch", lambda *_: (torch.full((16, 1, 8, 8), torch.nan), *_batch()))
    assert not trainer.advance(0.0)
    assert all(map(torch.equal, before, power_states(trainer.network)))


def _batch():
    return torch.zeros(16, dtype=torch.int64), torch.arange(16)


def test_the_generator_may_learn_from_every_third_batch(spectral):
    trainer = trainer_of(override(spectral, ["objective.every=3"]))
    moved = []
    for _ in range(6):
        before = [p.clone() for p in trainer.network.generator.parameters()]
        trainer.advance(0.0)
        moved.append(not all(map(torch.equal, before, trainer.network.generator.parameters())))
    assert moved == [False, False, True] * 2


def test_each_half_moves_its_own_side_only(recipe, monkeypatch):
    trainer = trainer_of(recipe)
    moved = []
    take = AdversarialTrainer._take

    def watched(self, side, *arguments):
        before = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        good = take(self, side, *arguments)
        changed = [name for name, p in self.network.named_parameters() if not torch.equal(before[name], p)]
        moved.append((side, {name.split(".")[0] for name in changed}))
        return good

    monkeypatch.setattr(AdversarialTrainer, "_take", watched)
    assert trainer.advance(0.0)
    assert moved == [("discriminator", {"discriminator"}), ("generator", {"generator"})]
    assert all(p.requires_grad and p.grad is None for p in trainer.network.parameters())


def test_two_optimisers_with_the_recipes_settings(recipe):
    trainer = trainer_of(recipe)
    for side in ("generator", "discriminator"):
        (optimizer,) = trainer.optimizers[side]
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        assert held == {id(p) for p in trainer.network.get_submodule(side).parameters()}
        assert optimizer.param_groups[0]["betas"] == (0.5, 0.999) and optimizer.param_groups[0]["lr"] == 2e-4


def test_a_bad_step_changes_nothing(recipe):
    """A NaN image leaves weights, optimisers, averages and BatchNorm's statistics as they were, and is counted."""
    trainer = trainer_of(recipe)
    trainer.advance(0.0)
    before = copied(trainer.tensors())
    batch = trainer.loader.batch

    def poisoned(start, count):
        x0, label, positions = batch(start, count)
        return x0 * float("nan"), label, positions

    trainer.loader.batch = poisoned
    assert trainer.advance(0.0) is False
    assert same(before, trainer.tensors()) and trainer.watch.total == 1
    trainer.loader.batch = batch
    assert trainer.advance(0.0) is True
    assert not same(before, trainer.tensors())


def test_the_log_says_who_is_winning(recipe, tmp_path):
    train(recipe, tmp_path, quiet=True, device="cpu")
    for record in log_of(tmp_path):
        assert 0 < record["fake"] < 1 and 0 < record["real"] < 1 and record["skipped"] == 0
        assert record["loss"] > 0 and record["loss_generator"] > 0 and record["grad_norm_generator"] > 0


def test_a_run_samples_like_any_other(recipe, tmp_path):
    """Class 0 is a class; an image depends on its seed and label, not on its batch; the average differs from raw."""
    run = train(recipe, tmp_path, quiet=True, device="cpu")
    source = run.source()
    zeros = source([5, 6, 7], torch.tensor([0, 0, 0]))
    assert zeros.dtype == torch.uint8 and zeros.shape == (3, 1, 8, 8)
    assert torch.equal(source([6], torch.tensor([0])), zeros[1:2])
    assert not torch.equal(source([5, 6, 7], torch.tensor([1, 1, 1])), zeros)
    assert not torch.equal(run.source(use="raw")([5, 6, 7], torch.tensor([0, 0, 0])), zeros)
    assert (tmp_path / "sheets" / "000000320.png").exists()
    with pytest.raises(ValueError, match="needs one in"):
        source([1])
    with pytest.raises(ValueError, match="needs one in"):
        source([1], torch.tensor([-1]))
    with pytest.raises(RecipeError, match="one pass"):
        run.diffusion()


def test_its_losses_and_its_training_are_pictures(recipe, tmp_path):
    """CSV and plot of the losses; the sheets on fixed noise, a row per class, as an animation."""
    from sfumato.cli import main
    from sfumato.pictures.training import training
    from sfumato.runs.run import Run

    train(override(recipe, ["train.sheet_every=96"]), tmp_path, quiet=True, device="cpu")
    assert main(["curves", str(tmp_path)]) == 0
    head, *rows = (tmp_path / "curves" / "training.csv").read_text().splitlines()
    assert {"images", "loss", "loss_generator", "real", "fake"} <= set(head.split(","))
    assert len(rows) == len(log_of(tmp_path)) and (tmp_path / "curves" / "losses.png").stat().st_size > 5000
    sheets = sorted((tmp_path / "sheets").glob("*.png"))
    animation = training(Run.open(tmp_path))
    assert animation.format == "GIF" and animation.n_frames == len(sheets) > 2


def test_an_unlabelled_generator_takes_no_label(recipe, tmp_path):
    run = train(override(recipe, ["data.labels=false", "train.images=32"]), tmp_path, quiet=True, device="cpu")
    assert run.source()([1, 2]).shape == (2, 1, 8, 8)
    with pytest.raises(ValueError, match="without labels"):
        run.source()([1], torch.tensor([0]))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("schedule=linear", "reads schedule"),
        ("draw=uniform", "reads draw"),
        ("sample.guidance=2", "reads sample.guidance"),
        ("sample.sampler=ddim", "reads sample.sampler"),
        ("network=unet", "trains a generator.*network=dcgan"),
        ("objective=denoising", "trains a denoiser.*network=unet"),
        ("train.micro=4", "BatchNorm looks at the whole batch"),
        ("data.augment=0.1", "cannot be told"),
    ],
)
def test_what_cannot_work_is_refused(recipe, change, said):
    data = load_data(recipe, "train")
    with pytest.raises(RecipeError, match=said):
        check(plan(resolve(override(recipe, [change]), data)))


@pytest.mark.slow
def test_digits_emerge(tmp_path):
    """After 20,000 images the generator's pixels have the mean and spread of real digits, class by class."""
    run = train(override(dcgan_digits(), ["train.images=20000"]), tmp_path, quiet=True, device="cpu")
    real = load_data(run.recipe, "test")
    made = run.source()(range(400), torch.arange(400) % 10).float()
    labels = torch.arange(400) % 10
    means = torch.stack([made[labels == k].mean(0).flatten() for k in range(10)])
    truth = torch.stack([real.images[real.labels == k].float().mean(0).flatten() for k in range(10)])
    nearest = torch.cdist(means, truth).argmin(1)
    assert int((nearest == torch.arange(10)).sum()) >= 8
