"""The noisy classifier: its loss, its training, its curve against the noise, and the guidance it gives."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import nn

from sfumato import conditioning, schedules
from sfumato.core.classifier import NoisyClassifier
from sfumato.core.level import Level
from sfumato.draws import uniform
from sfumato.evaluation import evaluate
from sfumato.evaluation.accuracy import evaluate_classifier
from sfumato.objectives.classifier import classifier
from sfumato.recipes.digits_families import adm_digits_classifier, ddpm_digits
from sfumato.report.sections import sections
from sfumato.runs.override import override
from sfumato.runs.recipe import RecipeError
from sfumato.runs.run import Run
from sfumato.training.loop import train

SMALL = ("train.precision=fp32", "train.log_every=512", "train.sheet_every=1000000", "train.batch=64")
CLASSIFIER = (*SMALL, "train.images=4480", "train.optimizer.lr=0.003", "network.width=16", "network.head_width=16")
MODEL = (
    *(*SMALL, "train.images=512", "train.optimizer=adam", "network.width=16", "network.head_width=16"),
    *("network.blocks=1", "network.embedding=32", "sample.grid.steps=8"),
)


class Constant(nn.Module):
    """Logits that ignore the image: (B, 4)."""

    def forward(self, x, c_noise):
        return torch.tensor([2.0, 0.0, 0.0, 0.0]).expand(len(x), 4)


def test_the_loss_is_the_negative_log_probability():
    table = schedules.linear(100).levels
    model = NoisyClassifier(Constant(), c_noise=conditioning.index(table), table=table)
    loss = classifier(uniform(schedules.linear(100)), classes=4, seed=0, batch=4)
    found = loss(model, torch.zeros(4, 1, 2, 2), torch.tensor([0, 1, 0, 3]), torch.arange(4))
    log_z = math.log(math.exp(2) + 3)
    assert found.each.tolist() == pytest.approx([log_z - 2, log_z, log_z - 2, log_z])
    assert found.parts["accuracy"].tolist() == [1, 0, 1, 0]
    with pytest.raises(ValueError, match="label"):
        loss(model, torch.zeros(4, 1, 2, 2), None, torch.arange(4))
    with pytest.raises(ValueError, match="at least 2 classes"):
        classifier(uniform(schedules.linear(100)), classes=0, seed=0, batch=4)
    with pytest.raises(ValueError, match="discrete levels"):
        model(torch.zeros(1, 1, 2, 2), Level.of(1.0, [3.3]))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small noisy classifier, 100 steps, and an equally small model of the same chain, 16 steps."""
    folder = tmp_path_factory.mktemp("classifier")
    return (
        train(override(adm_digits_classifier(), CLASSIFIER), folder / "classifier", quiet=True, device="cpu"),
        train(override(ddpm_digits(), MODEL), folder / "model", quiet=True, device="cpu"),
    )


def test_accuracy_is_chance_in_noise_and_grows_towards_clean(trained):
    result = evaluate_classifier(trained[0], log_snrs=(-9.0, -2.0, 6.0))
    noisy, _, clean = rows = result.tables["accuracy"]
    assert [row["ln SNR"] for row in rows] == sorted(row["ln SNR"] for row in rows)
    chance, best = noisy["accuracy"]["value"], clean["accuracy"]["value"]
    assert abs(chance - 0.1) < 4 * 0.016  # 360 images: three binomial errors and the classes' unequal shares
    assert best > chance + 6 * math.sqrt((best * (1 - best) + chance * (1 - chance)) / 360)
    assert all(low < row["accuracy"]["value"] < high for row in rows for low, high in [row["accuracy"]["interval"]])
    assert clean["-ln p(y | x)"] < math.log(10) < noisy["-ln p(y | x)"] + 0.2
    assert result.curves["accuracy"]["chance"] == pytest.approx(0.1)


def test_a_classifier_is_evaluated_by_its_accuracy_and_by_nothing_that_needs_images(trained):
    result = evaluate(trained[0], device="cpu", m=60)
    stored = json.loads(result.path.read_text())
    assert stored["tables"] == result.tables and len(result.tables["accuracy"]) == 11
    assert all(row["m"] == 60 and "mark" not in row["accuracy"] for row in result.tables["accuracy"])
    made = {section.key: section for section in sections([stored], result.path.parent)}
    assert made["headline"].tables and made["headline"].pictures[0].kind == "curve"
    with pytest.raises(ValueError, match="trained a classifier.*--metrics accuracy"):
        evaluate(trained[0], metrics=("fd",), device="cpu")
    with pytest.raises(ValueError, match="objective=classifier"):
        evaluate(trained[1], metrics=("accuracy",), device="cpu")
    seen = evaluate(trained[0], split="train", m=60, device="cpu")
    assert seen.provenance["flags"] and seen.tables["accuracy"][0]["accuracy"]["mark"] == "*"


@pytest.mark.parametrize("option", [{"n": 100}, {"extract": "pixels"}, {"first_seed": 5}])
def test_options_of_generated_images_are_refused(trained, option):
    with pytest.raises(ValueError, match=f"{next(iter(option))} would say how images are made .* m says how many"):
        evaluate(trained[0], **option, device="cpu", quiet=True)


def test_accuracy_is_logged_by_noise_level(trained):
    records = [json.loads(line) for line in (trained[0].path / "metrics.jsonl").read_text().splitlines()]
    assert records[-1]["loss"] < records[0]["loss"]
    last = [v for v in records[-1]["accuracy_by_log_snr"] if v is not None]
    assert all(0 <= v <= 1 for v in last) and last[-1] > last[0]
    assert records[-1]["accuracy"] > 0.15
    assert not (trained[0].path / "sheets").exists()


@pytest.mark.parametrize("sampler", ["ancestral", "ddim"])
def test_it_guides_a_model(trained, sampler):
    """Either algorithm raises ln p(label) of the images, by the classifier's own judgement; scale 0 moves nothing."""
    guide, model = trained
    labels = torch.arange(30) % 10
    # the classifier's chain is the cosine, so the model is sampled as if it had been trained on it
    plain = [f"sample.sampler={sampler}", "sample.sampler.clip=true", "schedule=cosine", "sample.grid.steps=10"]
    judge, clean = guide.classifier(), schedules.cosine(1000).levels[1]

    def sampled(*more):
        recipe = override(model.recipe, [*plain, *more])
        return model.with_recipe(recipe).source(use="raw").floats(range(30), labels)

    def judged(x):
        return judge(x.clamp(-1, 1), clean).log_softmax(1).gather(1, labels[:, None]).flatten()

    guided = [f"sample.classifier={guide.path}", "sample.classifier_scale=8.0"]
    unguided = sampled()
    assert torch.allclose(sampled(guided[0], "sample.classifier_scale=0.0"), unguided, atol=1e-5)
    gain = judged(sampled(*guided)) - judged(unguided)
    assert float(gain.mean()) > 3 * float(gain.std()) / len(gain) ** 0.5


def test_a_classifier_run_is_not_sampled_and_a_model_run_does_not_classify(trained):
    guide, model = trained
    with pytest.raises(RecipeError, match="sample.classifier="):
        guide.source()
    with pytest.raises(RecipeError, match="objective=classifier"):
        model.classifier()
    assert Run.open(guide.path).classifier()(torch.zeros(2, 1, 8, 8), schedules.cosine(1000).levels[5]).shape == (2, 10)


def test_an_unlabelled_model_is_told_by_the_classifier_alone(trained):
    guide, model = trained
    recipe = override(model.recipe, ["data.labels=false", "schedule=cosine", f"sample.classifier={guide.path}"])
    recipe = type(recipe)(**{**vars(recipe), "shape": type(recipe.shape)(1, 8, 8)})
    run = model.with_recipe(recipe)
    assert run.classes == model.classes
    source = run.source(denoiser=lambda x, level, label=None: _refuse(x, label))
    assert source([1, 2], torch.tensor([3, 4])).shape == (2, 1, 8, 8)


def _refuse(x, label):
    from sfumato.core.denoiser import Prediction

    assert label is None
    return Prediction(0 * x)
