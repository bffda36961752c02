"""Every form of guidance, other sizes and encoding are reached by a flag, and refused where they cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from sfumato.runs.guided import guidance_of, guide, weak_of
from sfumato.runs.making import guides
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe, RecipeError, Sample
from sfumato.runs.run import Run

LABEL = torch.tensor([3, 0, 7])


def made(run: Run, *fields: str) -> tuple[torch.Tensor, Run]:
    chosen = run.with_recipe(override(run.recipe, [f"sample.{field}" for field in fields]))
    return chosen.source().floats([0, 1, 2], LABEL), chosen


@pytest.fixture
def run(labelled: Path) -> Run:
    return Run.open(labelled)


def test_no_guidance_is_bitwise_the_model(run: Run) -> None:
    plain, _ = made(run)
    for fields in (["guidance_by_class=" + ",".join("1" * 10)], ["autoguidance=@raw", "autoguidance_weight=1"]):
        assert torch.equal(made(run, *fields)[0], plain)


def test_forms_compose_as_their_formulas_say(run: Run) -> None:
    """One call of the composed denoiser against the sum written out."""
    fields = ["guidance=3", "guidance_ramp=linear", "autoguidance=@raw", "autoguidance_weight=2", "threshold=static"]
    chosen = run.with_recipe(override(run.recipe, [f"sample.{field}" for field in fields]))
    strong, weak = run.denoiser(), run.denoiser("raw")
    guided, _ = guide(chosen.plan, strong, weak=chosen.weak())
    level = chosen.source().grid[1]
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * float(level.sigma)

    def auto(label: torch.Tensor) -> torch.Tensor:
        a, b = strong(x, level, label).x0, weak(x, level, label).x0
        return b + 2 * (a - b)

    t = 2 / torch.pi * torch.atan2(level.sigma, level.alpha)
    w = 1 + (3 - 1) * 2 * (1 - t)
    null = torch.full_like(LABEL, -1)
    expected = (auto(null) + float(w) * (auto(LABEL) - auto(null))).clamp(-1, 1)
    torch.testing.assert_close(guided(x, level, LABEL).x0, expected, rtol=1e-4, atol=1e-5)


def test_each_class_has_its_own_weight(run: Run) -> None:
    weights = ",".join("4" if c == 0 else "1" for c in range(10))
    plain, all_four = made(run)[0], made(run, "guidance=4")[0]
    mixed, _ = made(run, f"guidance_by_class={weights}")
    assert torch.allclose(mixed[1], all_four[1], atol=1e-5) and torch.allclose(mixed[[0, 2]], plain[[0, 2]], atol=1e-5)
    assert not torch.allclose(plain[1], all_four[1], atol=1e-3)


def test_evaluation_counts_the_weak_model_too(labelled: Path, cli) -> None:
    said = cli("evaluate", labelled, "--autoguidance", "@raw", "--interval", "1,5", "--device", "cpu", "--quiet")
    assert said.code == 0, said.err
    facts = json.loads(Path(said.out.split("Written to ")[1].partition("\nNext:")[0].strip()).read_text())["provenance"]
    grid = Run.open(labelled).source().grid
    count = int(((grid.nsr[:-1] >= 1) & (grid.nsr[:-1] <= 5)).sum())
    assert facts["nfe_weak"] >= count > 0 and facts["nfe"] == 5 + facts["nfe_weak"]
    assert facts["guided"] == "autoguidance 2 by @raw at nsr 1..5"


def test_a_smaller_run_guides_a_larger_one(labelled: Path, tmp_path: Path, cli, small) -> None:
    weak = tmp_path / "weak"
    sizes = ("network.width=8", "network.head_width=8", "train.images=64")
    assert cli("train", "edm-digits", *small, *sizes, "--out", weak, "--device", "cpu", "--quiet").code == 0
    said = cli(
        "sample",
        labelled,
        "--autoguidance",
        weak,
        "--guidance",
        2,
        "--threshold",
        "dynamic",
        "--n",
        4,
        "--out",
        tmp_path / "a.png",
        "--device",
        "cpu",
    )
    assert said.code == 0, said.err
    assert cli("sample", labelled, "--autoguidance", f"{weak}@1", "--n", 2, "--out", tmp_path / "b.png").code == 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["--autoguidance", "nowhere"], "is not a run"),
        (["--autoguidance", "@7"], "keeps no checkpoint of step 7; it has 2"),
        (["--autoguidance", "@power-0.5"], "Unknown average 'power-0.5'"),
        (["--autoguidance", "a@b@c"], "RUN@STEP@AVERAGE"),
        (["--guidance-by-class", "1,2"], "one weight per class, 10 for this model; got 2"),
        (["--guidance-by-class", "1,1,1,1,1,1,1,1,1,2", "--guidance", "2"], "would not be used"),
        (["--guidance-ramp", "linear"], "reads sample.guidance_ramp"),
        (["--guidance", "2", "--guidance-ramp", "steep"], "must be constant, linear or cosine"),
        (["--threshold", "soft"], "must be none, static or dynamic"),
        (["--threshold", "dynamic", "--threshold-quantile", "1"], "must be in (0, 1)"),
        (["--interval", "0.1,1"], "Set sample.guidance or sample.autoguidance"),
        (["--size", "9"], "sample.size=9: Height and width must be positive multiples of 2"),
        (["--size", "8,8,8"], "one number, or height and width"),
    ],
)
def test_bad_guidance_is_one_clear_message(fields: list[str], message: str, labelled: Path, cli) -> None:
    said = cli("sample", labelled, "--n", 2, "--device", "cpu", *fields)
    assert said.code == 2 and message in said.err and "Traceback" not in said.err


def test_an_unlabelled_model_takes_autoguidance_but_no_weak_model_of_other_classes(
    labelled: Path, unlabelled: Path, tmp_path: Path, cli
) -> None:
    words = ["sample", unlabelled, "--n", 2, "--out", tmp_path / "a.png", "--device", "cpu"]
    assert cli(*words, "--autoguidance", "@raw").code == 0
    said = cli(*words, "--autoguidance", labelled)
    assert said.code == 2 and "10 classes" in said.err and "Train the weak model on the model's data" in said.err


def test_images_of_another_size(labelled: Path, tmp_path: Path, cli, run: Run) -> None:
    said = cli("sample", labelled, "--size", "16", "--n", 2, "--images", tmp_path / "big", "--device", "cpu")
    assert said.code == 0, said.err
    from PIL import Image

    with Image.open(tmp_path / "big" / "seed-000000000.png") as picture:
        assert picture.size == (16, 16)
    assert made(run, "size=12,16")[0].shape == (3, 1, 12, 16)
    assert torch.equal(made(run, "size=8")[0], made(run)[0])


def test_encoding_comes_back_closer_with_more_steps(labelled: Path, tmp_path: Path, cli) -> None:
    said = cli("encode", labelled, "--steps", "3,40", "--n", 3, "--out", tmp_path / "a.png", "--device", "cpu")
    assert said.code == 0, said.err
    few, many = (line.split() for line in said.out.splitlines() if line.split()[:1] in (["3"], ["40"]))
    assert few[1] == "5" and many[1] == "79"
    assert float(many[2]) < 0.5 * float(few[2])
    assert (tmp_path / "a.png").exists()


def test_encoding_refuses_what_it_cannot_walk(labelled: Path, cli) -> None:
    cases: dict[str, Callable[[], object]] = {
        "at least 2": lambda: cli("encode", labelled, "--steps", "1"),
        "has 360 images": lambda: cli("encode", labelled, "--n", "400"),
        "needs 'table'": lambda: cli("encode", labelled, "--grid", "respaced"),
    }
    for message, ask in cases.items():
        said = ask()
        assert said.code == 2 and message in said.err, said  # type: ignore[attr-defined]


def test_words_and_places() -> None:
    assert guides(Sample()) == []
    assert [guide.words for guide in guides(Sample(threshold="dynamic"))] == ["dynamic threshold 0.995"]
    assert weak_of("a/b@10@raw") == ("a/b", 10, "raw")
    for text in ("", "a@1@2", "a@@raw", "a@x@y"):
        with pytest.raises(RecipeError, match="sample.autoguidance reads"):
            weak_of(text)


# guidance as a list of parts


FORMS = '''
"""Forms of guidance of somebody's own."""
from sfumato.core.denoiser import Prediction

def sharpen(denoiser, amount: float = 2.0):
    """Scale x0."""
    return lambda x, level, label=None: Prediction(amount * denoiser(x, level, label).x0)

def away(denoiser, weak, by: float = 1.0):
    """Step away from the weak model."""
    def guided(x, level, label=None):
        strong = denoiser(x, level, label).x0
        return Prediction(strong + by * (strong - weak(x, level, label).x0))
    return guided

def check(facts, options):
    if options.get("amount", 2.0) <= 0:
        raise ValueError(f"sharpen.amount is above 0; got {options['amount']:g}.")
'''


@pytest.fixture
def forms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "forms.py").write_text(FORMS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(
    ("short", "named"),
    [
        (["guidance=3"], ["guidance=cfg", "guidance.w=3"]),
        (["guidance=3", "interval=1,5"], ["guidance=[cfg]", "guidance.cfg.w=3", "interval=1,5"]),
        (["guidance=3", "guidance_ramp=linear"], ["guidance=cfg", "guidance.w=3", "guidance.over_levels=linear"]),
        (
            ["autoguidance=@raw", "autoguidance_weight=3"],
            ["autoguidance=@raw", "guidance=autoguidance", "guidance.w=3"],
        ),
        (["threshold=dynamic"], ["guidance=threshold", "guidance.quantile=0.995"]),
        (
            ["guidance=3", "autoguidance=@raw", "threshold=static"],
            ["autoguidance=@raw", "guidance=[autoguidance,cfg,threshold]", "guidance=3", "guidance.autoguidance.w=2"],
        ),
    ],
)
def test_the_short_fields_stand_for_parts(short: list[str], named: list[str], run: Run) -> None:
    assert torch.equal(made(run, *short)[0], made(run, *named)[0])


def test_a_form_from_outside_takes_its_place_in_the_list(run: Run, forms: None) -> None:
    fields = ["guidance=[cfg,forms:sharpen]", "guidance.w=3", "guidance.amount=0.5", "threshold=static"]
    _, chosen = made(run, *fields)
    assert [form.name for form in guidance_of(chosen.recipe.sample)] == ["cfg", "forms:sharpen", "threshold"]
    assert Recipe.from_json(chosen.recipe.to_json()) == chosen.recipe
    strong = run.denoiser()
    guided, _ = guide(chosen.plan, strong)
    plain, _ = guide(made(run, "guidance=3")[1].plan, strong)
    level = chosen.source().grid[1]
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * float(level.sigma)
    assert torch.equal(guided(x, level, LABEL).x0, (0.5 * plain(x, level, LABEL).x0).clamp(-1, 1))
    said, short = zip(*guides(chosen.recipe.sample))
    assert said == ("guidance 3", "forms:sharpen(amount=0.5)", "static threshold")
    assert short == ("w3", "sharpen-amount0.5", "static")
    assert made(chosen, "guidance=none")[1].recipe.sample.guides == ()


def test_a_form_that_asks_for_a_weak_model_is_given_the_one_named(run: Run, forms: None) -> None:
    images, chosen = made(run, "guidance=forms:away", "guidance.by=1", "autoguidance=@raw")
    twice, _ = made(run, "autoguidance=@raw", "autoguidance_weight=2")
    assert torch.allclose(images, twice, atol=1e-4)  # D + (D - W) = W + 2 (D - W)
    with pytest.raises(RecipeError, match="needs another run to guide by. Set sample.autoguidance=RUN"):
        made(chosen, "autoguidance=none")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (["guidance=[cfg,forms:sharpen]", "guidance.amount=-1"], "sharpen.amount is above 0; got -1"),
        (["guidance=cgf"], "Unknown guidance 'cgf'. Did you mean 'cfg'?"),
        (["guidance.w=2"], "is an option of a part named in guidance, and none takes it; named: none"),
        (["guidance=cfg", "guidance.v=2"], "none takes it; named: cfg"),
        (["guidance=[classifier]"], "Set sample.classifier=RUN"),
        (["guidance=cfg", "guidance.w=much"], "guidance=cfg: w must be a number; got 'much'"),
    ],
)
def test_bad_lists_are_refused(fields: list[str], message: str, labelled: Path, forms: None, cli) -> None:
    said = cli("sample", labelled, *fields, "--n", 2, "--device", "cpu")
    assert said.code == 2 and message in said.err and "Traceback" not in said.err
