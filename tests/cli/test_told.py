"""Models that are told more than a class, from training to a score: by name, by picture, and refused with the rule."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

import sfumato
from sfumato.cli import main
from sfumato.cli.sample import below_told
from sfumato.core.condition import Condition
from sfumato.core.find import find
from sfumato.core.images import to_float
from sfumato.data import load
from sfumato.data.told.beside import told_image
from sfumato.report import sweep as pictures
from sfumato.report.seed_folder import file_of
from sfumato.report.signature import read
from sfumato.restoration import agreeing
from sfumato.runs import resolve
from sfumato.runs.conditions import lending
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, RecipeError
from sfumato.runs.run import Run


def trained(small, folder, recipe, *more):
    words = ["train", recipe, *small, *more, "--out", str(folder), "--device", "cpu", "--quiet"]
    assert main(words) == 0
    return folder


@pytest.fixture(scope="session")
def told(small, tmp_path_factory):
    return trained(small, tmp_path_factory.mktemp("told") / "attributes", "edm-digits-attributes")


@pytest.fixture(scope="session")
def low(small, tmp_path_factory):
    more = ["objective.image_dropout=0"]
    return trained(small, tmp_path_factory.mktemp("told") / "low", "sr3-digits", *more)


def test_the_run_records_what_training_saw(told):
    data = load("digits", attributes=("ink", "slant", "width"))
    (name, mean, deviation, least, greatest), *_ = Run.open(told).recipe.shape.attributes
    values = data.vector[:, 0]
    assert name == "ink" and mean == pytest.approx(float(values.mean()), abs=1e-5)
    assert (least, greatest) == (pytest.approx(float(values.min())), pytest.approx(float(values.max())))
    assert deviation == pytest.approx(float(values.std()), rel=1e-3)


def test_attributes_are_asked_for_by_name(cli, told, tmp_path):
    said = cli("sample", told, "--where", "ink=0.9,slant=0", "--n", 3, "--images", tmp_path / "a", "--classes", 1)
    assert said.code == 0 and "ink=0.9 lies outside what training saw" in said.out
    assert json.loads((tmp_path / "a" / "settings.json").read_text())["where"] == {"ink": "0.9", "slant": "0"}
    again = cli("sample", told, "--like", tmp_path / "a" / "seed-000000001.png", "--out", tmp_path / "again.png")
    assert "the same, pixel for pixel" in again.out
    model = sfumato.load(told, device="cpu")
    with pytest.warns(UserWarning, match="ink=0.9 lies outside what training saw"):
        by_name = model.sample(3, classes=[1], where={"ink": 0.9, "slant": 0.0}, progress=False).images
    made = [np.asarray(Image.open(tmp_path / "a" / f"seed-{s:09d}.png")) for s in range(3)]
    assert np.abs(by_name[:, 0].numpy().astype(int) - np.stack(made)).max() <= 1
    rows = Run.open(told).recipe.shape.attributes
    vector = torch.tensor([[(0.9 - rows[0][1]) / rows[0][2], (0 - rows[1][1]) / rows[1][2], float("nan")]])
    direct = model.source(range(3), Condition(torch.ones(3, dtype=torch.int64), vector.expand(3, -1)))
    assert direct.equal(by_name)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--where", "inc=1"], "Unknown attribute 'inc'. Did you mean 'ink'?"),
        (["--where", "ink=dark"], "ink must be a finite number"),
        (["--where", "ink"], "Attributes read NAME=VALUE"),
        (["--like-image", "x.png"], "is told no image (data.condition=none)"),
        (["guidance=cfg", "guidance.image=2"], "the weight of a condition's image, which this model is not told"),
    ],
)
def test_what_the_model_is_not_told_is_refused(cli, told, words, said):
    found = cli("sample", told, *words)
    assert found.code == 2 and said in found.err


def test_a_model_of_told_images_makes_no_other_size(cli, low):
    """It was a stack trace: the image that is told has a size of its own."""
    said = cli("sample", low, "sample.size=16")
    assert said.code == 2 and "is an image of its own, which sample.size=16 leaves as it is" in said.err


def test_a_picture_sweeps_two_attributes(cli, told, tmp_path):
    target = tmp_path / "sweep.png"
    said = cli("picture", "attributes", told, "over=ink,slant", "points=3", "--out", target)
    assert said.code == 0 and target.exists()
    said = cli("picture", "attributes", told, "over=ink,ink")  # rows and columns would show one number under two names
    assert said.code == 2 and "one or two attributes, each once" in said.err
    said = cli("picture", "attributes", told, "over=inc")
    assert said.code == 2 and "Did you mean 'ink'" in said.err


def swept(monkeypatch):
    """Return what the blocks of sweeps hold, by name, from now on."""
    seen, draw = {}, pictures.sweep

    def spy(sources, seeds, labels, **options):
        seen.update({name: source(seeds, labels) for name, source in sources.items()}, rows=options["row_labels"])
        return draw(sources, seeds, labels, **options)

    monkeypatch.setattr(pictures, "sweep", spy)
    return seen


def test_a_sweep_of_an_attribute_is_that_attribute_asked_for_by_name(cli, told, monkeypatch):
    seen = swept(monkeypatch)
    said = cli("sweep", told, "where.slant=0,1sd", "where.ink=0.9", "--classes", "0,7", "--n", 2)
    assert said.code == 0 and "ink=0.9 lies outside what training saw" in said.out
    assert (told / "samples" / "sweep-where-slant.png").exists() and seen["rows"] == ["0", "7"]
    model = sfumato.load(told, device="cpu")
    for value in ("0", "1sd"):
        with pytest.warns(UserWarning, match="ink=0.9 lies outside"):
            own = model.sample(4, classes=[0, 0, 7, 7], where={"slant": value, "ink": 0.9}, progress=False)
        assert own.images.equal(seen[f"slant {value}"])


def test_a_second_attribute_or_the_classes_are_the_rows_of_a_sweep(cli, told, monkeypatch):
    seen = swept(monkeypatch)
    words = ["where.slant=-1sd,1sd", "where.ink=0.25,0.3,0.4", "--n", 2, "--classes", "3"]
    assert cli("sweep", told, *words).code == 0
    assert seen["rows"] == ["ink 0.25", "ink 0.3", "ink 0.4"]
    model = sfumato.load(told, device="cpu")
    own = [
        model.sample(2, classes=[3], where={"slant": "1sd", "ink": ink}, progress=False).images
        for ink in (0.25, 0.3, 0.4)
    ]
    assert (torch.cat(own).int() - seen["slant 1sd"].int()).abs().max() <= 1  # another batch rounds otherwise
    assert cli("sweep", told, "classes=4,none", "where.ink=0.2,0.3", "--n", 1).code == 0
    own = model.sample(1, classes=[4], where={"ink": 0.3}, progress=False).images
    assert (own[0].int() - seen["classes 4"][1].int()).abs().max() <= 1
    assert not seen["classes 4"].equal(seen["classes none"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["where.inc=0,1"], "Did you mean 'ink'?"),
        (["where.ink=0,x"], "ink must be a finite number"),
        (["where.ink=0.2"], "at least two values"),
        (["where.ink=0,1", "where.ink=2"], "each named once"),
        (["where.ink=0,1", "classes=1,2", "where.slant=0,1"], "one in its rows"),
        (["where.ink=0,1", "--score", "40"], "--metrics obedience"),
        (["classes=1,zebra"], "Unknown class 'zebra'"),
    ],
)
def test_a_sweep_of_what_cannot_be_told_is_refused(cli, told, words, said):
    found = cli("sweep", told, *words)
    assert found.code == 2 and said in found.err


def test_a_sweep_of_a_model_that_is_told_an_image_tells_those_of_test_images(cli, low, tmp_path):
    assert cli("sweep", low, "sampler=heun,ddim", "--n", 1, "--out", tmp_path / "s.png").code == 0


def test_a_model_is_told_a_picture(cli, low, tmp_path):
    Image.fromarray(load("digits", split="test", condition="low:2").beside[0, 0].numpy()).save(tmp_path / "low.png")
    said = cli("sample", low, "--like-image", tmp_path / "low.png", "--n", 2, "--out", tmp_path / "sheet.png")
    assert said.code == 0 and (tmp_path / "sheet.png").exists()
    assert cli("sample", low, "--n", 2, "--out", tmp_path / "own.png").code == 0  # of test images
    Image.fromarray(np.zeros((5, 5), dtype=np.uint8)).save(tmp_path / "other.png")
    said = cli("sample", low, "--like-image", tmp_path / "other.png")
    assert said.code == 2 and "is grey 5x5; this needs grey 4x4 or grey 8x8. Resize it." in said.err
    said = cli("sample", low, "guidance=2")
    assert said.code == 2 and "objective.image_dropout=0 has never learned" in said.err
    with pytest.raises(ValueError, match="An image by itself is asked for"):
        Run.open(low).source()([0])


def test_what_test_images_lend_is_part_of_what_made_an_image(cli, low, tmp_path, monkeypatch):
    """A folder of images made beside other test images is another folder, and so is a picture of it."""
    words = ["sample", low, "--n", 3, "--images", tmp_path / "a"]
    assert "3 images written" in cli(*words).out and "0 images written" in cli(*words).out
    picture = ["sample", low, "--like", tmp_path / "a" / "seed-000000001.png", "--out", tmp_path / "again.png"]
    assert "the same, pixel for pixel" in cli(*picture).out
    real = resolve.load_data

    def turned(*asked):
        data = real(*asked)
        return replace(data, beside=data.beside.flip(-1))

    monkeypatch.setattr("sfumato.runs.resolve.load_data", turned)
    monkeypatch.setattr("sfumato.runs.run.load_data", turned)
    for again in (words, picture):
        refused = cli(*again)
        assert refused.code == 2 and "lent: " in refused.err


def test_classes_that_are_chosen_are_told_beside_a_test_image(cli, small, tmp_path):
    """The image is lent with its class, unless somebody chose another; what is written down is what was told."""
    low = trained(small, tmp_path / "low", "sr3-digits", "data.labels=true", "train.images=64")
    run = Run.open(low)
    theirs = load("digits", split="test").labels[lending(len(load("digits", split="test")), range(4))]
    for words, wanted in ((["--classes", "3"], [3] * 4), (["--classes", "none"], [None] * 4), ([], theirs.tolist())):
        folder = tmp_path / "-".join(words or ["lent"])
        assert cli("sample", low, "--n", 4, "--images", folder, *words).code == 0
        assert [read(folder / file_of(seed))[1]["label"] for seed in range(4)] == wanted
    model = sfumato.load(low, device="cpu")
    assert model.sample(4, progress=False).labels.tolist() == theirs.tolist()
    assert model.sample(4, ["3"], progress=False).labels.tolist() == [3] * 4
    told = run.named(range(4), torch.full((4,), 3), lender=run.lender({}, None))
    assert told.label.tolist() == [3] * 4 and told.image is not None


def test_a_model_that_is_told_the_measurement_restores_by_sampling(cli, low, told, tmp_path):
    """The restored pictures are its samples under the small image, brought onto A x0 = y."""
    data = load("digits", split="test", condition="low:2")
    model = sfumato.load(low, device="cpu")
    task = model.task("superres", factor=2)
    y = to_float(data.beside[:2])
    found = model.restore(y, task, samples=1, damaged=True)
    label = Condition(image=told_image(data.beside[:2], (8, 8)))
    assert torch.allclose(found.samples[:, 0], agreeing(task, y, model.source.floats([0, 1], label)), atol=1e-5)
    assert found.vjps == 0
    assert cli("restore", low, "--score", 20, "task=superres", "factor=2", "--out", tmp_path / "r").code == 0
    tree = json.loads((tmp_path / "r" / "restored.json").read_text())
    assert tree["method"] == "told" and {"PSNR, a sample", "PSNR, mean", "coverage"} <= set(tree["scores"])
    Image.fromarray(data.images[0, 0].numpy()).save(tmp_path / "x.png")
    said = cli("restore", low, tmp_path / "x.png", "task=inpaint", "mask=half")
    assert said.code == 2 and "This model is told data.condition=low:2 of a picture" in said.err
    said = cli("restore", low, tmp_path / "x.png", "task=superres", "factor=2", "filter=nearest")
    assert said.code == 2 and "is another measurement" in said.err
    said = cli("restore", told, tmp_path / "x.png", "task=superres", "factor=2", "--method", "told")
    assert said.code == 2 and "samples a model that is told the measurement" in said.err


def test_obedience_is_measured_beside_real_images(cli, told, low):
    said = cli("evaluate", told, "--n", 60, "--metrics", "obedience", "fd")
    assert said.code == 0
    (result,) = (told / "results").glob("*.json")
    tree = json.loads(result.read_text())
    rows = tree["tables"]["obedience"]
    assert [row["attribute"] for row in rows] == ["class", "ink", "slant", "width"]
    assert all(row["real images"]["value"] == pytest.approx(1.0) for row in rows[1:])
    assert all(-1 <= row["samples"]["interval"][0] <= row["samples"]["interval"][1] <= 1 for row in rows)
    assert tree["scores"][0]["protocol"]["class_prior"] == "conditions of real images"
    assert cli("evaluate", low, "--n", 60, "--metrics", "obedience", "fd").code == 0


def test_the_class_is_measured_beside_real_images(cli, labelled, unlabelled):
    assert cli("evaluate", labelled, "--n", 60, "--metrics", "obedience", "fd").code == 0
    newest = max((labelled / "results").glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    (row,) = json.loads(newest.read_text())["tables"]["obedience"]
    assert (row["attribute"], row["score"], row["n"]) == ("class", "accuracy", 60)
    assert row["real images"]["value"] > 0.8 > row["samples"]["interval"][0]  # of ten classes, by their pixels
    said = cli("evaluate", unlabelled, "--metrics", "obedience", "--n", 60)
    assert said.code == 2 and "this model is told none" in said.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("network=convnet",), "cannot be told with network=convnet"),
        (("objective=vlb", "schedule=cosine", "variance=range"), "cannot be told with objective=vlb"),
        (("objective.coupling=ot",), "exchanges noises within a class"),
        (("data.flip=true",), "whose slant was measured before"),
        (("data.attributes=ink,ink",), "names each attribute once"),
        (("data.condition=lo",), "Did you mean 'low'"),
    ],
)
def test_a_recipe_that_cannot_be_told_is_refused(words, said):
    from sfumato.runs.check import check

    recipe = override(find("recipe", "edm-digits-attributes")(), words)
    with pytest.raises((RecipeError, ValueError), match=said):
        check(plan(override(recipe, ["shape=none"])).resolved(with_shape(recipe)))


def with_shape(recipe: Recipe) -> Recipe:
    """Return a recipe that knows the shape of its images."""
    from dataclasses import replace

    from sfumato.runs.recipe import Shape

    return replace(recipe, shape=Shape(1, 8, 8, tuple("0123456789")), sigma_data=0.5)


@pytest.mark.parametrize("name", ["edm-fashion-mnist-attributes-cpu", "sr3-fashion-mnist-cpu", "celeba-64-attributes"])
def test_the_larger_recipes_are_counted_and_keep_their_names(name):
    from dataclasses import replace

    from sfumato.runs.recipe import Shape

    recipe = find("recipe", name)()
    if recipe.shape is None:
        recipe = replace(recipe, shape=Shape(1, 28, 28, ("a", "b")))
    assert plan(recipe).cost.parameters > 1e6 and Recipe.from_json(recipe.to_json()) == recipe


def test_a_sheet_shows_above_each_sample_what_it_was_told():
    made = torch.arange(13, dtype=torch.uint8).reshape(13, 1, 1, 1).expand(13, 1, 4, 4).contiguous()
    told = to_float(made[:, :, ::2, ::2] + 100)
    cells, columns, names = below_told(made, told)
    assert columns == 8 and names == ["told", "sample", "told", "sample"]
    first, second = cells.split(16)
    assert first[8:].equal(made[:8]) and first[:8].equal(made[:8] + 100)  # enlarged to the samples' size
    assert second[8:13].equal(made[8:]) and second[:5].equal(made[8:] + 100)
    assert bool((second[13:] == 255).all()) and bool((second[5:8] == 255).all())


def test_the_sheet_of_a_model_that_is_told_an_image_has_rows_for_it(cli, low, tmp_path):
    heights = {}
    for n in (8, 16):
        assert cli("sample", low, "--n", n, "--steps", 2, "--out", tmp_path / f"{n}.png").code == 0
        heights[n] = Image.open(tmp_path / f"{n}.png").height
    one = Image.open(tmp_path / "8.png").width // 10
    assert heights[16] - heights[8] >= 2 * one  # two rows more for eight samples more
