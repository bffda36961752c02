"""What leaves is the same model: the real diffusers gives the same images, onnxruntime the same numbers."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from sfumato.core.find import UnknownNameError, entries
from sfumato.core.noise import SamplingNoise
from sfumato.core.writing import replace_json
from sfumato.interop import hub
from sfumato.interop.exporting import export_run
from sfumato.interop.exports.diffusers import scheduler_config
from sfumato.interop.importing import import_run
from sfumato.interop.schedulers import read_scheduler
from sfumato.interop.tensors import ForeignError
from sfumato.recipes.digits_families import ddpm_digits
from sfumato.runs.checkpoint import save
from sfumato.runs.override import override, recipe_named
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Ema, Recipe, Shape
from sfumato.runs.run import Run

SEEDS = list(range(4))
CHAIN = (
    "data.labels=false",
    "sample.grid=respaced",
    "sample.grid.steps=20",
    "schedule=linear",
    "schedule.steps=40",
    "schedule.beta_max=0.006",  # some signal is left: rounding is not magnified
    "c_noise=index",
    "train.precision=fp32",
    "ema.power=()",
    "ema.half_life=()",
    "ema.use=raw",
    "sample.batch=4",
)
DDPM = ("network=ddpm", "network.width=32", "network.mult=1,2", "network.blocks=1", "network.attention=[4]")
ADM = ("network=adm", "network.width=32", "network.mult=1,2", "network.blocks=1", "network.attention=8,4")


def run_of(recipe: Recipe, folder: Path, seed: int = 3) -> Run:
    """Write a run whose network has every layer away from zero."""
    recipe = replace(recipe, shape=recipe.shape or Shape(1, 8, 8, ()), sigma_data=0.5)
    network = plan(recipe).build_network()
    g = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in network.parameters():
            p += 0.03 * torch.randn(p.shape, generator=g)
    state = {"seen": 640, "step": 10, "elapsed": 1.0, "skipped": 0, "recipe": recipe.to_json()}
    save(folder / "checkpoints", 10, {"network": dict(network.state_dict())}, state)
    replace_json(folder / "recipe.json", {"recipe": recipe.to_json(), "fingerprint": {}, "machine": {}})
    return Run.open(folder)


def chain(*fields: str) -> Recipe:
    return override(ddpm_digits(), [*CHAIN, *fields])


def told(noise: SamplingNoise, sigma: float) -> Callable[..., Tensor]:
    """Return a source of noise for diffusers that hands out ours: first the start, then the steps in turn.

    We start at the first level's own sigma; diffusers starts at 1, which is the same only where no signal is left.
    """
    calls = iter(range(10**6))
    return lambda *_, **__: sigma * noise.start() if (i := next(calls)) == 0 else noise(i - 1)


def theirs(folder: Path, steps: int, monkeypatch: pytest.MonkeyPatch, like: Run, **call: Any) -> np.ndarray:
    """Images of the pipeline in a folder, with our noise."""
    diffusers = pytest.importorskip("diffusers")
    kind = json.loads((folder / "model_index.json").read_text())["_class_name"]
    pipeline = getattr(diffusers, kind).from_pretrained(str(folder))
    pipeline.set_progress_bar_config(disable=True)
    made = like.source()
    source = told(SamplingNoise(torch.tensor(SEEDS), made.shape), float(made.grid[0].sigma))
    short = kind.removesuffix("Pipeline").lower()
    monkeypatch.setattr(f"diffusers.pipelines.{short}.pipeline_{short}.randn_tensor", source)
    monkeypatch.setattr(f"diffusers.schedulers.scheduling_{short}.randn_tensor", source)
    images = pipeline(batch_size=len(SEEDS), num_inference_steps=steps, output_type="np", **call).images
    return np.rint(images * 255).astype(np.int64)


def ours(run: Run) -> np.ndarray:
    return run.source()(SEEDS).permute(0, 2, 3, 1).numpy().astype(np.int64)


STEPS = ("sample.grid.steps=0", "sample.grid.spec=ddim20")
CASES = {
    "ddpm, small variance": (*DDPM, *STEPS, "sample.sampler=ancestral", "sample.sampler.clip=true"),
    "x0": (*DDPM, *STEPS, "target=x0", "sample.sampler=ddim"),
    "v, cosine": (*DDPM, *STEPS, "target=v", "schedule=cosine", "schedule.steps=40", "sample.sampler=ddim"),
    "quadratic": (*DDPM, *STEPS, "schedule=quadratic", "schedule.steps=40", "schedule.beta_max=0.006",
                  "sample.sampler=ancestral"),
    "sigmoid": (*DDPM, *STEPS, "schedule=sigmoid", "schedule.steps=40", "target=v", "sample.sampler=ddim"),
    "adm": (*ADM, *STEPS, "network.resample=conv", "network.heads=2", "network.head_width=0", "network.attention=[4]",
            "sample.sampler=ddim"),
    "adm, plain, sines first": (*ADM, *STEPS, "network.resample=conv", "network.adaptive=false",
                                "network.sin_first=true", "network.endpoint=true", "network.head_width=16",
                                "sample.sampler=ddim"),
    "learned variance": (*DDPM, *STEPS, "variance=range", "objective=hybrid", "sample.sampler=ancestral",
                         "sample.sampler.variance=learned", "sample.sampler.clip=true"),
}  # fmt: skip
SAMPLERS = {
    "ancestral, small": ("sample.sampler=ancestral", "sample.sampler.clip=true"),
    "ancestral, large": ("sample.sampler=ancestral", "sample.sampler.variance=large", "sample.sampler.clip=true"),
    "ddim": ("sample.sampler=ddim",),
    "ddim, clipped": ("sample.sampler=ddim", "sample.sampler.clip=true"),
    "ddim, clipped as diffusers": (
        "sample.sampler=ddim",
        "sample.sampler.clip=true",
        "sample.sampler.clip_noise=false",
    ),
    "ddim, eta": ("sample.sampler=ddim", "sample.sampler.eta=0.5"),
    "euler": ("sample.sampler=euler",),
}
GRIDS = {
    "leading": (20, STEPS),
    "trailing": (10, ("sample.grid=trailing", "sample.grid.steps=10")),
    "full": (40, ("sample.grid=full",)),
    "linspace": (14, ("sample.grid=respaced", "sample.grid.steps=14")),
}
CASES |= {
    f"{sampler} on {grid}": (*DDPM, *GRIDS[grid][1], *SAMPLERS[sampler])
    for sampler in SAMPLERS
    for grid in GRIDS
    if (grid != "linspace" or "ancestral" in sampler) and (grid, sampler) != ("trailing", "ancestral, large")
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_diffusers_makes_the_same_images(case: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = run_of(chain(*CASES[case]), tmp_path / "run")
    (line, _) = export_run(run, "diffusers", tmp_path / "out")
    call = json.loads((tmp_path / "out" / "model_index.json").read_text())["_sfumato_call"]
    assert all(f"{key}={value!r}" in line for key, value in call.items()), "what is printed is what is tried"
    found = theirs(tmp_path / "out", monkeypatch=monkeypatch, like=run, steps=call.pop("num_inference_steps"), **call)
    assert np.ptp(found) > (50 if "as diffusers" in case else 100), "the pictures are not flat"
    assert int(np.abs(found - ours(run)).max()) <= 1
    back = import_run(tmp_path / "out", tmp_path / "back")
    assert int(np.abs(ours(back.run) - ours(run)).max()) <= 1
    assert back.run.recipe.network.entry() is run.recipe.network.entry()
    assert back.found.notes == ()


def test_a_leading_walk_leaves_and_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fast member of the table above."""
    test_diffusers_makes_the_same_images("ddim, clipped on leading", tmp_path, monkeypatch)


@pytest.mark.slow
def test_round_trip_from_a_foreign_file_to_diffusers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint that diffusers saved: import, sample, export, load it there again, the same images."""
    diffusers = pytest.importorskip("diffusers")
    torch.manual_seed(0)
    unet = diffusers.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        block_out_channels=(32, 64),
        layers_per_block=1,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=16,
    )
    scheduler = diffusers.DDPMScheduler(num_train_timesteps=40, beta_end=0.3)
    diffusers.DDPMPipeline(unet, scheduler).save_pretrained(str(tmp_path / "theirs"))
    run = import_run(tmp_path / "theirs", tmp_path / "run").run
    export_run(run, "diffusers", tmp_path / "again")
    before = theirs(tmp_path / "theirs", 40, monkeypatch, run)
    after = theirs(tmp_path / "again", 40, monkeypatch, run)
    assert np.abs(before - ours(run)).max() <= 1 and np.abs(before - after).max() <= 1


REFUSED = {
    "network=unet": ("network=unet",),
    "only discrete chains": (*DDPM, "schedule=vp", "c_noise=vp-time"),
    "target=edm": (*DDPM, "target=edm"),
    "only conv": (*ADM,),
    "network.rescale": (*ADM, "network.resample=conv", "network.rescale=true"),
    "sampler=heun": (*DDPM, "sample.sampler=heun"),
    "sampler=euler": (*DDPM, "sample.sampler=euler", "sample.sampler.churn=5"),
    r"sampler=ddim\(eta=1": (*DDPM, "sample.sampler=ddim", "sample.sampler.eta=1", "sample.sampler.sigma_hat=true"),
    "guidance threshold": (*DDPM, "sample.sampler=ddim", "sample.threshold=static"),
    "goes down by T // N": (*DDPM, "sample.sampler=ddim", "sample.grid.steps=14"),
    "its spacings give other": (*DDPM, "sample.sampler=ancestral", "sample.grid=quadratic", "sample.grid.steps=4"),
    "adds noise to the image": (
        *DDPM,
        "sample.sampler=ancestral",
        "sample.sampler.variance=large",
        "sample.grid=trailing",
        "sample.grid.steps=10",
    ),
    "only corner": (*DDPM, "network.resample=mean", "sample.sampler=ddim"),
    "levels of different widths": (*ADM, "network.resample=conv", "network.head_width=0", "network.heads=2"),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_a_pipeline_cannot_hold_is_refused_and_nothing_is_left(reason: str, tmp_path: Path) -> None:
    run = run_of(chain(*REFUSED[reason]), tmp_path / "run")
    with pytest.raises(ForeignError, match=reason):
        export_run(run, "diffusers", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]
    labelled = replace(chain(*DDPM, "data.labels=true"), shape=Shape(1, 8, 8, ("a", "b")))
    with pytest.raises(ForeignError, match="with labels"):
        export_run(run_of(labelled, tmp_path / "labelled"), "diffusers", tmp_path / "out")


GRIDS = {
    "ddim10": ("sample.grid=respaced", "sample.grid.steps=0", "sample.grid.spec=ddim10"),
    "even": ("sample.grid=respaced", "sample.grid.steps=10"),
    "trailing": ("sample.grid=trailing", "sample.grid.steps=10"),
    "full": ("sample.grid=full",),
    "listed": ("sample.grid=listed", "sample.grid.entries=40,20,1"),
    "quadratic": ("sample.grid=quadratic", "sample.grid.steps=5"),
    "karras": ("sample.grid=karras", "sample.grid.steps=10"),
}


@pytest.mark.parametrize("grid", GRIDS)
def test_every_sampler_on_a_grid_comes_back_or_is_refused_in_a_sentence(grid: str) -> None:
    """What a scheduler says is read back as the same sampler on the same levels; anything else never leaves."""
    left = set()
    for name in entries("sampler"):
        recipe = override(chain(*DDPM), [f"sample.sampler={name}", *("sample.grid=full", *GRIDS[grid])])
        recipe = replace(recipe, shape=Shape(1, 8, 8, ()), sigma_data=0.5)
        try:
            config, call = scheduler_config(recipe)
        except ForeignError as refusal:
            assert re.fullmatch(
                r"diffusers' pipelines cannot hold .*\. Export to safetensors or onnx instead\.", str(refusal)
            )
            continue
        left.add(name)
        walk = read_scheduler(config, False, call)
        again = replace(recipe, sample=walk.sample, **walk.fields)
        assert not walk.changed
        assert again.sample.sampler.name == {"euler": "ddim"}.get(name, name)
        for ours, back in zip(plan(recipe).grid, plan(again).grid, strict=True):
            torch.testing.assert_close(back.log_snr, ours.log_snr, rtol=1e-6, atol=0)
    expected = {"ddim10": {"ancestral", "ddim", "euler"}, "trailing": {"ancestral", "ddim", "euler"}}
    expected |= {"full": {"ancestral", "ddim", "euler"}, "even": {"ancestral"}}
    assert left == expected.get(grid, set())


def test_an_unknown_format_or_a_full_folder_is_refused(tmp_path: Path) -> None:
    run = run_of(chain(*DDPM), tmp_path / "run")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'onnx'"):
        export_run(run, "onx", tmp_path / "out")
    with pytest.raises(ForeignError, match="not empty"):
        export_run(run, "safetensors", tmp_path / "run")


def test_a_graph_of_what_is_told_no_level_is_refused(tmp_path: Path) -> None:
    run = run_of(recipe_named("autoencoder-digits"), tmp_path / "run")
    with pytest.raises(ForeignError, match="trained an autoencoder, and the graph is that of a network that is told"):
        export_run(run, "onnx", tmp_path / "out", use="raw")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


@pytest.mark.parametrize("labelled", [False, True])
def test_onnxruntime_gives_the_networks_numbers(labelled: bool, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    recipe = chain(*DDPM, "network.blocks=1")
    if labelled:
        recipe = replace(override(recipe, ["data.labels=true"]), shape=Shape(1, 8, 8, ("a", "b", "c")))
    run = run_of(recipe, tmp_path / "run")
    (line,) = export_run(run, "onnx", tmp_path / "out")
    assert "largest deviation" in line
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "network.onnx"))
    x, told = torch.randn(5, 1, 8, 8), torch.tensor([0.0, 3.0, 7.0, 20.0, 39.0])
    inputs = {"x": x, "c_noise": told} | ({"label": torch.tensor([0, 1, 2, -1, 0])} if labelled else {})
    (found,) = session.run(None, {k: v.numpy() for k, v in inputs.items()})
    wanted = run.network()(x, told, inputs.get("label"))
    assert np.abs(found - wanted.numpy()).max() < 1e-4 * np.abs(wanted.numpy()).max()
    levels = json.loads((tmp_path / "out" / "denoiser.json").read_text())["levels"]
    level = run.source().grid[0]
    f = run.network()(x, torch.tensor(levels["c_noise"][0]).float(), inputs.get("label"))
    by_hand = levels["c_skip"][0] * x + levels["c_out"][0] * f
    assert torch.allclose(by_hand, run.denoiser()(x, level, inputs.get("label")).x0, atol=1e-4)


def test_a_compact_run_keeps_the_images_and_its_card_the_scores(tmp_path: Path) -> None:
    run = run_of(replace(chain(*DDPM), ema=Ema(power=(), half_life=(), use="raw")), tmp_path / "run")
    (run.path / "results").mkdir()
    score = {"run": "run", "recipe": "ddpm-digits", "provenance": {"nfe": 20}, "scores": []}
    replace_json(run.path / "results" / "pixels.json", score)
    export_run(run, "safetensors", tmp_path / "out")
    again = Run.open(tmp_path / "out")
    assert np.array_equal(ours(again), ours(run))
    card = (tmp_path / "out" / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: sfumato") and "640 training images" in card
    assert "linear(beta_max=0.006, steps=40)" in card
    assert (tmp_path / "out" / "results" / "pixels.json").exists()


def test_the_hub_gets_a_folder_and_gives_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's two calls are replaced by a folder; what goes up and what comes down is checked, offline."""
    library = pytest.importorskip("huggingface_hub")
    store, asked = tmp_path / "hub", {}

    class Api:
        def create_repo(self, repo: str, **options: Any) -> None:
            asked[repo] = options

        def upload_folder(self, *, repo_id: str, folder_path: str, commit_message: str) -> str:
            shutil.copytree(folder_path, store / repo_id)
            (store / repo_id / "evil.pkl").write_bytes(b"cos\nsystem\n.")
            return f"https://hub/{repo_id}/commit/1"

    def snapshot_download(repo: str, *, revision: str | None, allow_patterns: list[str]) -> str:
        if not (store / repo).is_dir():
            raise OSError("404")
        target = tmp_path / "cache" / repo
        for file in (f for f in (store / repo).rglob("*") if f.is_file()):
            if any(fnmatch.fnmatch(file.name, pattern) for pattern in allow_patterns):
                (target / file.relative_to(store / repo)).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(file, target / file.relative_to(store / repo))
        return str(target)

    monkeypatch.setattr(library, "HfApi", Api)
    monkeypatch.setattr(library, "snapshot_download", snapshot_download)
    run = run_of(chain(*DDPM), tmp_path / "run")
    lines = export_run(run, "safetensors", tmp_path / "out", push="someone/model", private=True)
    assert lines[-1] == "pushed: https://hub/someone/model/commit/1"
    assert asked == {"someone/model": {"private": True, "exist_ok": True}}
    folder = hub.download("someone/model")
    assert not list(folder.rglob("*.pkl")), "only data comes down"
    assert np.array_equal(ours(Run.open(folder)), ours(run))
    with pytest.raises(ForeignError, match="nobody/nothing could not be fetched"):
        hub.download("nobody/nothing")
    with pytest.raises(ForeignError, match="named OWNER/NAME; got 'model'"):
        hub.upload(tmp_path / "out", "model")
