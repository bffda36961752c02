"""What a study is: it cannot contradict itself, every one of the room builds, published orderings are true."""

from __future__ import annotations

import dataclasses
from dataclasses import replace
from pathlib import Path

import pytest

import sfumato.studies
from sfumato.core.find import UnknownNameError
from sfumato.experiments import study
from sfumato.experiments.jobs import units
from sfumato.experiments.study import Ordering, Row, Study, StudyError, find_study, studies
from sfumato.networks._blocks import Attention
from sfumato.networks._reach import Reach, reach
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Recipe, Shape
from sfumato.studies.eta import KINDS, PUBLISHED
from sfumato.studies.families import rivals

PUBLISHED_SIZES = {
    *("adagn", "adm-ablation", "attention", "bottleneck", "calibration", "eta", "gan-diffusion", "gan-variants"),
    *("one-or-two-classes", "parameterisation", "schedule-sizes", "timesteps"),
}
CATS_AND_FROGS = {*("bottleneck", "gan-diffusion", "gan-variants", "one-or-two-classes", "schedule-sizes", "timesteps")}
AT_28 = {"few-calls", "guidance-forms"}
NUMBERS = {  # studies whose rows carry a paper's numbers, and how many of its orderings they contradict
    "adagn": 0,
    "adm-ablation": 0,
    "attention": 0,
    "bottleneck": 0,
    "gan-variants": 0,
    "parameterisation": 0,
    "gan-diffusion": 1,  # the course project's GAN of cats beats its cosine diffusion of three stages
}
BUILT = [
    (name, scale)
    for name, entry in studies().items()
    for scale in study.SCALES
    if {"paper": name in PUBLISHED_SIZES, "lossy": name in CATS_AND_FROGS, "cpu28": name in AT_28}.get(scale, True)
]


def study_of(*rows: Row, **fields: object) -> Study:
    words = {"name": "mine", "scale": "tiny", "question": "?", "varies": "-", "equal": "-", "by": ""}
    return Study(**{**words, "rows": rows, **fields})


def test_every_file_of_the_folder_is_a_study() -> None:
    assert {"families", "samplers", "eta", "learned-variance", "guidance", "conv-sampling"} <= set(studies())
    assert {"gan-variants", "gan-diffusion", "classifier-guidance", "progressive", "network-parts"} <= set(studies())
    files = Path(sfumato.studies.__file__).parent.glob("*.py")
    assert set(studies()) == {f.stem.replace("_", "-") for f in files if not f.stem.startswith("_")}


@pytest.mark.parametrize(("name", "scale"), BUILT)
def test_every_study_builds_at_its_scales(name: str, scale: str) -> None:
    built = find_study(name, scale)
    assert (built.name, built.scale) == (name, scale)
    assert built.question.endswith("?") and built.varies and built.equal
    assert all(override(recipe, ["train.seed=1"]).train.seed == 1 for recipe in built.runs.values())
    if scale == "tiny":
        assert sum(recipe.train.images for recipe in built.runs.values()) <= 13 * 1024


@pytest.mark.parametrize("name", sorted(CATS_AND_FROGS))
def test_lossy_studies_see_nothing_but_cats_and_frogs_of_the_lossy_copy(name: str) -> None:
    for recipe in find_study(name, "lossy").runs.values():
        assert recipe.data.name == "cifar10-jpeg75" and {*recipe.data.classes} <= {"cat", "frog"}
        assert recipe.data.size == 16 and recipe.evaluate.extractor == "random" and "fashion" not in recipe.name


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'samplers'"):
        find_study("sampler", "tiny")
    with pytest.raises(StudyError, match="Did you mean 'cpu'"):
        find_study("eta", "cpus")
    with pytest.raises(StudyError, match="Available: cpu, tiny"):
        find_study("families", "paper")


def test_rows_of_one_run_train_one_recipe(tiny: Recipe) -> None:
    longer = override(tiny, ["train.images=640"])
    with pytest.raises(StudyError, match="train.images"):
        study_of(Row("a", tiny, run="r"), Row("b", longer, run="r"))
    assert set(study_of(Row("a", tiny, run="r"), Row("b", tiny, run="r"), Row("c", longer)).runs) == {"r", "c"}


def test_a_study_refuses_what_contradicts_itself(tiny: Recipe) -> None:
    a, b = Row("a", tiny), Row("b", tiny)
    with pytest.raises(StudyError, match="results of rows 'DDIM 0.2' and 'ddim-0.2' would be one file, 'ddim-0.2'"):
        study_of(Row("DDIM 0.2", tiny, run="r"), Row("ddim-0.2", tiny, run="r"))
    with pytest.raises(StudyError, match="distinct names"):
        study_of(a, a)
    with pytest.raises(ValueError, match="Unknown metric 'fdd'. Did you mean 'fd'"):
        study_of(a, metrics=("fdd",))
    with pytest.raises(StudyError, match="Unknown row in an ordering of mine 'bb'. Did you mean 'b'"):
        study_of(a, b, orderings=(Ordering("rises", ("a", "bb")),))
    with pytest.raises(StudyError, match="metric"):
        study_of(a, b, orderings=(Ordering("rises", ("a", "b"), "recall"),))


def test_the_orderings_of_eta_are_those_of_the_published_numbers() -> None:
    """Every claim attributed to DDIM's Table 1 is true of the numbers in DDIM's Table 1."""
    study = find_study("eta", "paper")
    paper = {row.name: row.paper for row in study.rows}
    assert len(paper) == len(KINDS) * 5 == sum(len(by_steps) for by_steps in PUBLISHED.values())
    assert len(study.orderings) == 8
    for ordering in study.orderings:
        numbers = [paper[name] for name in ordering.rows]
        assert numbers == sorted(numbers) and None not in numbers, ordering.claim


@pytest.mark.parametrize("name", NUMBERS)
def test_orderings_said_by_a_paper_are_those_of_its_numbers(name: str) -> None:
    study = find_study(name, "paper")
    paper = {row.name: row.paper for row in study.rows}
    asked = [o for o in study.orderings if o.source and all(paper[row] is not None for row in o.rows)]
    against = [o.claim for o in asked if (numbers := [paper[row] for row in o.rows]) != sorted(numbers)]
    assert asked and len(against) == NUMBERS[name], against


def test_a_guide_must_be_one_of_the_study(tiny: Recipe) -> None:
    with pytest.raises(StudyError, match="Unknown guide of row a in mine 'classifer'. Did you mean 'classifier'"):
        study_of(Row("a", tiny, guide="classifer"), guides={"classifier": tiny})


def test_a_student_begins_from_a_run_of_the_study(tiny: Recipe) -> None:
    rows = Row("teacher", tiny), Row("student", override(tiny, ["train.images=640"]))
    with pytest.raises(StudyError, match="begins from 'teecher'. Did you mean 'teacher'"):
        study_of(*rows, starts={"student": "teecher"})
    study = study_of(*rows, starts={"student": "teacher"})
    assert units(study) == [[(0, "teacher")], [(0, "student")]]
    assert study.only(["teacher"]).starts == {}
    with pytest.raises(StudyError, match="add a row of teacher"):
        study.only(["student"])


def test_ways_to_few_calls_see_equal_images_the_teachers_counted() -> None:
    for scale in ("tiny", "cpu", "cpu28"):
        study = find_study("few-calls", scale)
        totals = {
            name: recipe.train.images + (study.runs[study.starts[name]].train.images if name in study.starts else 0)
            for name, recipe in study.runs.items()
            if name not in study.starts.values()
        }
        more = {name for name, teacher in study.starts.items() if teacher == "flow"}  # of the whole teacher
        fewer = {total for name, total in totals.items() if name not in more}
        assert len(fewer) == 1 and more < set(study.starts)
        assert {totals[name] for name in more} == {int(fewer.pop() * 11 / 6)}


@pytest.mark.parametrize("name", sorted(AT_28))
def test_studies_at_28_pixels_train_the_recipes_of_the_package(name: str) -> None:
    for recipe in find_study(name, "cpu28").runs.values():
        assert (recipe.data.name, recipe.data.size, recipe.evaluate.extractor) == (
            "fashion-mnist",
            None,
            "fashion-mnist",
        )
    assert find_study("guidance-forms", "cpu28").runs["edm"] == edm_fashion_mnist_cpu()


def test_matched_networks_are_of_equal_size() -> None:
    """Without attention and wider, the network has the weights of the one with attention, within a percent."""
    from sfumato.studies.attention import parameters

    for scale in ("tiny", "cpu"):
        sizes = {row.name: parameters(row.recipe) for row in find_study("attention", scale).rows}
        assert abs(sizes["matched"] / sizes["attention"] - 1) < 0.01 < 1 - sizes["dropped"] / sizes["attention"]


def test_adm_combines_what_helped_and_not_the_rescaling() -> None:
    rows = {row.name: row.recipe.network.options for row in find_study("adm-ablation", "paper").rows}
    assert rows["combined"]["heads"] == 4 and rows["combined"]["attention"] == (32, 16, 8)
    assert rows["combined"]["resample"] == "block" and not rows["combined"].get("rescale", False)
    changed = {name: {k for k in options if options[k] != rows["base"].get(k)} for name, options in rows.items()}
    assert changed["heads"] == {"heads"} and changed["attention"] == {"attention"}
    assert changed["deeper"] == {"width", "blocks"} and changed["rescale"] == {"rescale"}


def test_families_differ_in_nothing_but_the_family() -> None:
    rows = find_study("families", "cpu").rows
    assert {"edm", "ddpm", "iddpm", "vp", "ve", "flow"} <= {row.name for row in rows}
    for part in ("data", "network", "train", "ema", "evaluate"):
        assert len({repr(getattr(row.recipe, part)) for row in rows}) == 1, part
    family = {repr(dataclasses.replace(override(row.recipe, row.settings), name="")) for row in rows}
    assert len(family) == len(rows) == len(rivals())


def test_families_that_differ_in_their_sampler_only_are_trained_once() -> None:
    study = find_study("families", "cpu")
    rows = {row.name: row for row in study.rows}
    assert rows["ve"].trained == rows["ve-corrected"].trained and len(study.runs) == len(rows) - 1
    for name in ("ve", "ve-corrected"):
        sampler = override(rows[name].recipe, rows[name].settings).sample.sampler
        assert sampler == rivals()[f"{name}-digits"].sample.sampler


def test_optimizers_differ_in_their_optimiser_and_batch_only_and_each_is_tried_around_its_own_rate() -> None:
    study = find_study("optimizers", "cpu")
    alike = ("train.optimizer=adam", "train.batch=64")
    rows = {repr(dataclasses.replace(override(row.recipe, alike), name="")) for row in study.rows}
    assert len(rows) == 1 and len({repr(row.recipe.train) for row in study.rows}) == len(study.rows)
    own = [row for row in study.rows if "batch" not in row.name]
    rates = {
        kind: [row.recipe.train.optimizer.options["lr"] for row in own if row.name.startswith(kind)]
        for kind in ("Muon", "AdamW")
    }
    assert rates == {"Muon": [0.005, 0.01, 0.02, 0.04], "AdamW": [0.001, 0.002, 0.004]}
    assert study.rows[0].recipe.train.minutes == 4.0 and study.rows[0].recipe.sample.guidance == 1.0


def test_some_rows_of_a_study_keep_the_orderings_between_them() -> None:
    study = find_study("optimizers", "cpu")
    part = study.only(["AdamW 0.002", "Muon 0.02"])
    assert [row.name for row in part.rows] == ["Muon 0.02", "AdamW 0.002"]
    assert [ordering.claim for ordering in part.orderings] == ["Muon 0.02 scores below AdamW 0.002"]
    with pytest.raises(StudyError, match="Unknown row of optimizers 'AdamW 0.02'. Did you mean 'AdamW 0.002'"):
        study.only(["AdamW 0.02"])
    guided = find_study("classifier-guidance", "cpu")
    assert guided.guides and not guided.only([row.name for row in guided.rows if not row.guide]).guides


@pytest.mark.parametrize("scale", ["tiny", "cpu"])
def test_receptive_fields_are_those_of_the_networks_at_equal_capacity(scale):
    recipes = {row.name: (row, with_shape(row.recipe)) for row in find_study("receptive-field", scale).rows}
    assert len(recipes) == 8
    for capacity in ("small", "large"):
        sizes = {name: plan(r).cost.parameters for name, (_, r) in recipes.items() if name.startswith(capacity)}
        plain = [size for name, size in sizes.items() if name.endswith("none")]
        assert max(sizes.values()) < 1.15 * min(sizes.values()) and max(plain) < 1.03 * min(plain)
    for name in ("small, field 17, none", "large, field 33, attention"):
        row, recipe = recipes[name]
        assert reach(plan(recipe).network, plan(recipe).image) == Reach(int(row.x), name.endswith("attention"))


@pytest.mark.parametrize("scale", ["tiny", "cpu", "lossy"])
def test_bottlenecks_have_as_many_weights(scale):
    rows = find_study("bottleneck", scale).rows
    sizes = [plan(with_shape(row.recipe)).cost.parameters for row in rows]
    assert max(sizes) < 1.17 * min(sizes)
    assert [row.x for row in rows] == ([8, 4, 2] if scale == "tiny" else [16, 8, 4, 2])


@pytest.mark.parametrize("scale", ["tiny", "cpu"])
def test_heads_per_level_are_those_of_the_rows_at_equal_weights_and_products(scale):
    costs = []
    for row in find_study("heads-per-level", scale).rows:
        made = plan(with_shape(row.recipe))
        fine, coarse = int(row.name.split()[0]), int(row.name.split()[2])
        heads = [part.heads for part in made.network.modules() if isinstance(part, Attention)]
        assert heads == [fine, coarse, coarse, fine]  # down, and up again
        costs.append((made.cost.parameters, made.cost.network.macs))
    assert len(costs) == 4 and len(set(costs)) == 1


def with_shape(recipe):
    return replace(recipe, shape=Shape(1, 16, 16, tuple("0123456789")), sigma_data=0.5)
