"""Mistakes that were found in published code and reports, one test each, named after the mistake.

Each test fails if the mistake is made here. They are small: the tests of each package go deeper.
"""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch

from sfumato import draws, grids, schedules
from sfumato.cli import main
from sfumato.core.denoiser import NULL, Counted, Prediction
from sfumato.core.find import entries
from sfumato.core.images import to_float, to_uint8
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level
from sfumato.core.noise import SamplingNoise, normal
from sfumato.data import load
from sfumato.data.dataset import Dataset
from sfumato.data.splits import split_by_hash
from sfumato.evaluation import cached_features, evaluate
from sfumato.experiments.study import Row, Study, StudyError, find_study
from sfumato.guidance.cfg import cfg
from sfumato.guidance.classifier import classifier
from sfumato.likelihood.vlb import term
from sfumato.metrics import rules
from sfumato.metrics.features import extractor
from sfumato.metrics.frechet import expected_bias, frechet
from sfumato.metrics.neighbours import nearest
from sfumato.networks.unet import unet
from sfumato.objectives._noising import Noising
from sfumato.recipes.digits import edm_digits
from sfumato.runs import checkpoint
from sfumato.runs.check import check
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import RecipeError
from sfumato.runs.resolve import load_data, resolve
from sfumato.samplers.ancestral import ancestral
from sfumato.sources import Diffusion
from sfumato.training.loop import train


class Labelled:
    """A denoiser whose estimate is its label: -1 (none), 0, 1, ... divided by ten."""

    def __init__(self):
        self.asked = []

    def __call__(self, x, level, label=None):
        self.asked.append(None if label is None else label.clone())
        value = torch.full((len(x),), -0.1) if label is None else label.to(x.dtype) / 10
        return Prediction(value[:, None, None, None].expand_as(x).to(x.dtype))


def test_unseeded_split():
    """A split is a function of each image: the same in any process and any order, and its sides do not meet."""
    whole = load("digits", split="all")
    train_, val = (split_by_hash(whole, side, val=0.3) for side in ("train", "val"))
    again = split_by_hash(whole.subset(list(range(len(whole)))[::-1]), "val", val=0.3)
    assert {h.tobytes() for h in val.image_hashes} == {h.tobytes() for h in again.image_hashes}
    assert not {h.tobytes() for h in val.image_hashes} & {h.tobytes() for h in train_.image_hashes}
    assert load("digits", split="val", val=0.3).index_hash == load("digits", split="val", val=0.3).index_hash


def test_stale_metric_cache_keyed_by_path(tmp_path, monkeypatch):
    """Features of other images under the same name and path are computed anew."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data, extract = load("digits"), extractor("pixels", (1, 8, 8))
    changed = Dataset(data.name, 255 - data.images, data.labels, data.classes, data.split, data.indices, data.rule)
    before = np.asarray(cached_features(extract, data))
    assert not np.array_equal(before, np.asarray(cached_features(extract, changed)))
    assert np.array_equal(before, np.asarray(cached_features(extract, data)))


def test_nearest_neighbour_index_scrambled():
    """An exact copy of training image 7 has training image 7 as its nearest neighbour."""
    images = load("digits").images[:500].flatten(1).numpy().astype(np.float64)
    distance, index = nearest(images[7:8], images)
    assert int(index.reshape(-1)[0]) == 7 and float(distance.reshape(-1)[0]) == 0


def test_class_0_treated_as_no_label():
    """Class 0 is a class: guided and unguided, its estimate is not the one without a label."""
    x, level, zero = torch.zeros(2, 1, 2, 2), Level.of(1.0, 1.0), torch.tensor([0, 0])
    denoiser = Labelled()
    assert torch.equal(cfg(denoiser, 1.0)(x, level, zero).x0, torch.zeros_like(x))
    guided = cfg(denoiser, 2.0)(x, level, zero).x0
    assert torch.allclose(guided, torch.full_like(x, 0.1))  # -0.1 + 2 (0 - -0.1)
    source = Diffusion(denoiser, lambda d, x, g, **k: iter(()), grids.karras(2), (1, 2, 2), classes=3)
    with pytest.raises(ValueError, match="Labels lie in"):
        list(source.states([0], torch.tensor([3])))


def test_label_with_scale_0_silently_unconditional_at_double_cost():
    """w = 1 asks once, with the label, and is the plain model; w = 0 is unconditional by name and documented so."""
    x, level, label = torch.zeros(2, 1, 2, 2), Level.of(1.0, 1.0), torch.tensor([4, 5])
    plain = Counted(Labelled())
    assert torch.equal(cfg(plain, 1.0)(x, level, label).x0, Labelled()(x, level, label).x0)
    assert (plain.nfe, plain.rows) == (1, 2)
    none = Counted(Labelled())
    assert torch.allclose(cfg(none, 0.0)(x, level, label).x0, torch.full_like(x, -0.1))
    assert none.rows == 2  # not both branches


def test_network_queried_above_its_trained_sigma():
    """Churn raises the level; it never asks above the grid's first, which training visited."""
    from sfumato.samplers.heun import heun

    asked = []

    def watched(x, level, label=None):
        asked.append(float(level.sigma.max()))
        return Prediction(0 * x)

    grid = grids.karras(10)
    noise = SamplingNoise([0], (1, 2, 2), dtype=torch.float64)
    for _ in heun(watched, float(grid[0].sigma) * noise.start(), grid, noise=noise, churn=40.0):
        pass
    assert max(asked) <= float(grid[0].sigma) * (1 + 1e-12)


def test_metric_mode_changed_by_editing_source():
    """What a score depends on is an argument, and two of them are two protocols."""
    assert {"n", "extract", "metrics", "split", "use"} <= set(inspect.signature(evaluate).parameters)


def test_batch_norm_statistics_over_mixed_noise_levels():
    """A denoiser's image does not depend on the levels of its batchmates: no network of the room mixes them."""
    from tests.networks.contract import SMALL, make

    for name in SMALL:
        assert not any(isinstance(m, torch.nn.modules.batchnorm._BatchNorm) for m in make(name).modules()), name


def test_non_resumable_non_atomic_checkpoints(tmp_path):
    """A checkpoint cut short is not taken, and the one before it is."""
    tensors = {"network": {"w": torch.arange(4.0)}}
    checkpoint.save(tmp_path, 1, tensors, {"seen": 1})
    checkpoint.save(tmp_path, 2, tensors, {"seen": 2})
    file = tmp_path / "step-2" / "network.safetensors"
    file.write_bytes(file.read_bytes()[:-3])
    (tmp_path / "step-3.tmp").mkdir()
    with pytest.warns(UserWarning, match="truncated"):
        found = checkpoint.latest(tmp_path)
    assert found is not None and found.state["seen"] == 1


def test_cosine_clipped_at_0_02():
    """iDDPM's cosine chain ends in noise; clipped at 0.02 it keeps 6% of the signal's amplitude."""
    ours, clipped = schedules.cosine(1000).levels, schedules.cosine(1000, clip=0.02).levels
    assert float(ours.alpha[-1]) < 1e-2
    assert 0.05 < float(clipped.alpha[-1]) < 0.06
    assert 1 - float((ours.alpha[-1] / ours.alpha[-2]) ** 2) == pytest.approx(0.999, abs=1e-6)


@pytest.mark.parametrize("steps", [250, 500, 1000, 1500])
def test_schedule_not_rescaled_with_t(steps):
    """A linear chain of any length ends in the same noise, to a few percent of its exponent."""
    exponent = -2 * float(schedules.linear(steps).levels.alpha[-1].log())
    assert exponent == pytest.approx(-2 * float(schedules.linear(1000).levels.alpha[-1].log()), rel=0.03)


def test_last_step_off_by_one():
    """The walk visits T levels, ends clean, adds no noise at its end, and returns the last estimate itself."""
    table = schedules.linear(50).levels
    grid = grids.full(table)
    assert len(grid) == 51 and float(grid[-1].sigma) == 0 and float(grid[-1].alpha) == 1
    noise_asked, target = [], torch.full((1, 1, 2, 2), 0.3, dtype=torch.float64)

    def noise(step):
        noise_asked.append(step)
        return normal([0], (1, 2, 2), purpose="step", step=step, dtype=torch.float64)

    *_, last = ancestral(lambda x, level, label=None: Prediction(target), torch.zeros_like(target), grid, noise=noise)
    assert torch.allclose(last.x, target, atol=1e-12) and len(noise_asked) == 49


def test_kl_loss_failing_on_a_batch_or_at_t_0():
    """Terms of the bound exist for a batch that mixes steps with the last one, and are those of single images."""
    kernels = Kernel.chain(grids.full(schedules.linear(20 * 2).levels))
    x0 = torch.rand(3, 1, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    guess, steps = Prediction(0.9 * x0), torch.tensor([0, 20, 39])
    clean = steps == 39
    together = term(guess, x0, kernels[steps], clean)
    assert torch.isfinite(together).all() and bool((together > 0).all())
    for i in range(3):
        alone = term(Prediction(guess.x0[i : i + 1]), x0[i : i + 1], kernels[steps[i : i + 1]], clean[i : i + 1])
        assert torch.allclose(alone, together[i : i + 1])


def test_variance_used_as_standard_deviation():
    """Noise of the forward process and of a reverse step has the stated standard deviation, not its square."""
    level = Level.of(0.6, 0.8)
    n = normal(range(2000), (1, 2, 2), purpose="mistake", dtype=torch.float64)
    assert float(level.noisy(torch.zeros_like(n), n).std()) == pytest.approx(0.8, rel=0.03)
    grid = Level.stack([Level.of(0.6, 0.8), Level.of(0.9, math.sqrt(1 - 0.81)), Level.clean()])
    kernel = Kernel.chain(grid)
    walk = ancestral(lambda x, lv, label=None: Prediction(0 * x), 0 * n, grid, noise=lambda step: n, variance="large")
    expected = float((kernel.log_var_large[0] / 2).exp())
    assert float(next(walk).x.std()) == pytest.approx(expected, rel=0.03) and abs(expected - expected**2) > 0.05


def test_attention_reshaping_that_mixes_images_at_another_size():
    """With attention, image i of a batch is image i alone, at the size of training and at twice the side."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = unet(size=8, width=16, head_width=16, embedding=32, patch=1, attention=(0, 1)).eval()
        for p in network.parameters():
            if p.ndim > 1 and float(p.detach().abs().max()) == 0:
                torch.nn.init.normal_(p, std=0.1)
    for side in (8, 16):
        x = torch.randn(3, 1, side, side, generator=torch.Generator().manual_seed(side))
        c = torch.tensor([0.1, 0.2, 0.3])
        with torch.no_grad():
            whole, alone = network(x, c), network(x[1:2], c[1:2])
        torch.testing.assert_close(whole[1:2], alone, rtol=1e-4, atol=1e-5)


def test_noise_scalar_broadcast_over_all_pixels():
    """Every pixel of every image has noise of its own."""
    n = Noising(draws.lognormal(), seed=0, batch=4).noise(torch.zeros(4, 3, 8, 8), torch.arange(4))
    assert n.unique().numel() == n.numel()
    assert abs(float(torch.corrcoef(n.flatten(1))[0, 1])) < 0.3


def test_one_t_per_batch():
    """Every image of a batch has a level of its own."""
    levels = Noising(draws.lognormal(), seed=0, batch=64).levels(torch.arange(64))
    assert levels.sigma.unique().numel() == 64


def test_ema_class_never_used(tiny, tmp_path):
    """Samples, sheets and scores come from the average that the recipe names, not from the raw weights."""
    run = train(override(tiny, ["train.images=64"]), tmp_path, quiet=True, device="cpu")
    named, raw = run.network(), run.network("raw")
    kept = run.checkpoint.tensors[f"ema-{run.recipe.ema.use}"]
    assert all(torch.equal(kept[k], v) for k, v in named.state_dict().items())
    assert any(not torch.equal(a, b) for a, b in zip(named.state_dict().values(), raw.state_dict().values()))


def test_comparing_models_with_unequal_gradient_steps():
    """The study of one class against two gives every run the same batch and images, hence gradient steps."""
    for name in ("one-or-two-classes", "families", "adm-ablation"):
        steps = {(r.train.images, r.train.batch) for r in find_study(name, "cpu").runs.values()}
        assert len(steps) == 1, name


def test_real_images_rounded_samples_truncated():
    """One conversion for both: rounding brings every code back; a truncating one is another name."""
    codes = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(codes)), codes)
    nudged = to_float(codes) - 1e-6  # what a float model returns for the same code
    assert torch.equal(to_uint8(nudged), codes)
    assert not torch.equal(to_uint8(nudged, "truncate"), codes)


def test_generator_told_of_a_schedule_it_does_not_have():
    """A field that means nothing is refused, not ignored."""
    from sfumato.recipes.gans import dcgan_digits

    recipe = dcgan_digits()
    with pytest.raises(RecipeError, match="nothing in this recipe reads schedule"):
        check(plan(resolve(override(recipe, ["schedule=cosine"]), load_data(recipe, "train"))))


def test_two_recipes_under_one_name_in_a_study():
    """A table cannot show two trainings as one run."""
    recipe = edm_digits()
    rows = (Row("a", recipe, run="r"), Row("b", override(recipe, ["train.batch=64"]), run="r"))
    with pytest.raises(StudyError, match="train.batch"):
        Study("mine", "tiny", "?", "-", "-", "", rows)


def test_null_label_is_not_the_last_class():
    """The label for "no class" is outside the classes."""
    assert NULL == -1


def test_a_set_compared_with_itself():
    """Itself is refused; two sets of one kind score 0.05 by the plain formula at n = 10,000, which is its bias."""
    hashes = load("digits").image_hashes
    with pytest.raises(rules.SelfComparisonError, match="compares a set with itself"):
        rules.check_self_comparison(hashes, hashes)
    d, n = 29, 10_000
    rng = np.random.Generator(np.random.Philox(5))
    x, y = rng.normal(size=(2, n, d))
    bias = expected_bias(np.ones(d), n, n)
    assert bias == pytest.approx((2 / n) * (d + d * (d + 1) / 4))
    assert bias == pytest.approx(0.05, rel=0.03)
    found = frechet(x, y)
    assert found.plain == pytest.approx(bias, rel=0.1)
    assert abs(frechet(x, x).plain) < 1e-9
    assert found.interval[0] <= 0 <= found.interval[1] < bias / 2


def test_classifier_trained_jointly_by_its_own_gradient():
    """Guiding asks the classifier for a slope in x: its weights get no gradient and the image carries no graph."""
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    guided = classifier(Labelled(), lambda x, level: network(x), scale=2.0)
    with torch.enable_grad():
        x = torch.zeros(2, 1, 2, 2, requires_grad=True)
        made = guided(x.detach(), Level.of(0.6, 0.8), torch.tensor([0, 2])).x0
    assert not made.requires_grad and all(p.grad is None for p in network.parameters())
    assert float(made.detach().sub(torch.tensor([0.0, 0.2])[:, None, None, None]).abs().max()) > 0  # it did guide


def test_a_protocol_of_other_code_goes_unnamed():
    """DDPM's scores on LSUN are by StyleGAN2's code, not by that of its CIFAR-10 scores, and each recipe says so."""
    recipes = {name: make for name, make in entries("recipe").items() if name.startswith("ddpm-lsun")}
    assert len(recipes) == 4
    for name, make in recipes.items():
        assert "by StyleGAN2's code" in " ".join((inspect.getdoc(make) or "").split()), name


def test_one_run_called_a_result(tiny, tmp_path, capsys):
    """Two runs are two trainings, whatever their images' interval: comparing them says what it does not cover."""
    runs = [tmp_path / name for name in ("a", "b")]
    for seed, path in enumerate(runs):
        fields = ["train.images=64", f"train.seed={seed}", "evaluate.extractor=pixels"]
        run = train(override(tiny, fields), path, quiet=True, device="cpu")
        evaluate(run, n=64, metrics=("fd",), quiet=True, device="cpu")
    assert main(["compare", *map(str, runs)]) == 0
    assert "one training each" in capsys.readouterr().out
    assert main(["compare", str(runs[0]), str(runs[0])]) == 0
    assert "one training each" not in capsys.readouterr().out


def test_the_best_of_several_epochs_against_the_last_of_a_rival(tiny, tmp_path):
    """Weights that were picked by their score carry a mark, and so do settings that were tried on one reference."""
    run = train(override(tiny, ["train.images=64", "evaluate.extractor=pixels"]), tmp_path, quiet=True, device="cpu")
    marks = []
    for use in (None, "raw"):
        marks += evaluate(run, n=64, metrics=("fd",), use=use, quiet=True, device="cpu").scores[0].flags[-1:]
    assert "selected on it" not in marks[0]
    assert marks[1] == "2 settings of this run were scored on this reference: the best of them is selected on it"
