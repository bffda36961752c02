"""Parts from outside: whatever fits its axis is taken, and a file never decides what is imported."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.cli.conftest import SMALL, Said

import sfumato
from sfumato.cli import main
from sfumato.core import outside
from sfumato.core.axes import AXES
from sfumato.core.denoiser import State
from sfumato.core.find import OptionError, UnknownNameError, entries, find
from sfumato.core.level import like
from sfumato.model import Model
from sfumato.report.signature import read, signed
from sfumato.runs.recipe import Recipe, RecipeError, part
from sfumato.runs.run import Run

WALK = '''
"""A module of somebody's own."""
from pathlib import Path
Path("imported").write_text("yes")
from sfumato.core.denoiser import State
from sfumato.core.level import like

def walk(denoiser, x, grid, *, noise, label=None, share: float = 1.0):
    """Step straight to the next level."""
    for s, t in zip(grid[:-1], grid[1:]):
        x0 = denoiser(x, s, label).x0
        n = (x - like(s.alpha, x) * x0) / like(s.sigma, x)
        x = like(t.alpha, x) * x0 + share * like(t.sigma, x) * n
        yield State(x, t, x0)

def bare(denoiser, x, grid, *, noise, label=None):
    return []

def short(denoiser, x):
    """Take too little."""

def asking(denoiser, x, grid, temperature, *, noise, label=None):
    """Ask for what nobody gives."""

NUMBER = 3
'''


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Stand in an empty folder with `mine.py`, and allow nothing."""
    (tmp_path / "mine.py").write_text(WALK)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(outside, "_handed", {})
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setenv("SFUMATO_WITH", "")
    yield
    for name in ("mine", "broken"):
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("outside") / "run"
    assert main(["train", "edm-digits", *SMALL, "--out", str(folder), "--device", "cpu", "--quiet"]) == 0
    return folder


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A run whose sampler is `mine:walk`."""
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    tree = json.loads((folder / "recipe.json").read_text())
    tree["recipe"]["sample"]["sampler"] = {"axis": "sampler", "name": "mine:walk", "options": {}, "code": hashed()}
    (folder / "recipe.json").write_text(json.dumps(tree))
    return folder


def hashed() -> str:
    """Hash of `mine.py`, taken where importing it leaves no trace."""
    outside.allow("mine")
    code = outside.code_of(find("sampler", "mine:walk"))
    os.environ["SFUMATO_WITH"] = ""
    sys.modules.pop("mine")
    Path("imported").unlink()
    return code


@pytest.fixture
def ask(capfd: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    def run(*words: object) -> Said:
        capfd.readouterr()
        return Said(main([str(word) for word in words]), *capfd.readouterr())

    return run


# what fits its axis


@pytest.mark.parametrize("axis", AXES)
def test_every_part_of_this_package_fits_its_axis(axis: str) -> None:
    for name, entry in entries(axis).items():
        outside.check(axis, name, entry)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nowhere_at_all:walk", "needs the module nowhere_at_all, which is not there. Install it"),
        ("mine:wakl", "Unknown function of mine 'wakl'. Did you mean 'walk'?"),
        ("mine:bare", "sampler mine:bare has no docstring"),
        ("mine:short", "it cannot be called so. A sampler is called as (denoiser, x, grid, *, noise, label)"),
        ("mine:asking", "its parameter 'temperature' has no default"),
        ("mine:NUMBER", "must be a function; got int 3"),
        ("broken:walk", "broken cannot be imported (ZeroDivisionError: division by zero)"),
        ("os:system", "must be a function; got builtin_function_or_method"),
        ("not a module:walk", "reads module.path:function"),
    ],
)
def test_what_is_no_part_is_refused_with_the_rule_and_the_remedy(name: str, words: str, trained: Path, ask) -> None:
    said = ask("sample", trained, "--sampler", name, "--device", "cpu")
    assert said.code == 2 and words in said.err and "Traceback" not in said.err


def test_an_objective_says_what_it_trains() -> None:
    Path("goal.py").write_text('def mse(draw):\n    """Count."""\n')
    outside.allow("goal")
    with pytest.raises(OptionError, match="its module goal must define TRAINS"):
        find("objective", "goal:mse")


# what a person names is taken


@pytest.mark.parametrize("words", [["--sampler", "mine:walk"], ["sampler=mine:walk", "sampler.share=1"]])
def test_the_command_line_takes_it_by_name(words: list[str], trained: Path, tmp_path: Path, ask) -> None:
    said = ask("sample", trained, *words, "--images", "im", "--n", 2, "--classes", "none", "--device", "cpu")
    assert said.code == 0, said.err
    assert ask("sample", trained, "sampler=euler", "--images", "eu", "--n", 2, "--classes", "none").code == 0
    mine, euler = (read(tmp_path / folder / "seed-000000001.png")[0] for folder in ("im", "eu"))
    assert mine.tobytes() == euler.tobytes()  # Euler's step in the variance-exploding gauge
    settings = json.loads((tmp_path / "im" / "settings.json").read_text())
    assert settings["sample"]["sampler"]["code"] == outside.code_of(sys.modules["mine"].walk)


def test_python_takes_it_by_name_and_as_a_function(trained: Path) -> None:
    named = sfumato.load(trained, device="cpu").sampled("mine:walk", steps=4, share=0.5)
    given = sfumato.load(trained, device="cpu").sampled(own_walk, steps=4, share=0.5)
    assert torch.equal(named.sample(3).images, given.sample(3).images)
    euler = sfumato.load(trained, device="cpu").sampled("euler", steps=4)
    assert not torch.equal(named.sample(3).images, euler.sample(3).images)


def own_walk(denoiser, x, grid, *, noise, label=None, share: float = 1.0):  # type: ignore[no-untyped-def]
    """Step straight to the next level."""
    for s, t in zip(grid[:-1], grid[1:]):
        x0 = denoiser(x, s, label).x0
        n = (x - like(s.alpha, x) * x0) / like(s.sigma, x)
        x = like(t.alpha, x) * x0 + share * like(t.sigma, x) * n
        yield State(x, t, x0)


def test_a_function_that_depends_on_what_stands_around_it_is_refused() -> None:
    share = 0.5

    def inner(denoiser: Any, x: Any, grid: Any, *, noise: Any, label: Any = None) -> Any:
        """Use `share`."""
        return share

    with pytest.raises(OptionError, match="uses share of the function around it. Make that an option"):
        part("sampler", inner)


def test_a_network_from_outside_is_trained_recorded_and_asked_for(tmp_path: Path, ask) -> None:
    Path("nets.py").write_text(
        "from sfumato.networks.convnet import convnet\n"
        "def small(channels, out_channels, classes, size, width: int = 8):\n"
        '    """Two levels."""\n'
        "    return convnet(channels, out_channels, classes, size, widths=(width, width), embedding=8)\n"
    )
    assert "not counted" in ask("explain", "edm-digits", "network=nets:small").out  # its layers are not known
    os.environ["SFUMATO_WITH"] = ""
    fields = [f for f in SMALL if not f.startswith("network")]
    words = ["network=nets:small", "network.width=4", "--out", "run", "--device", "cpu", "--quiet"]
    assert ask("train", "edm-digits", *fields, *words).code == 0
    os.environ["SFUMATO_WITH"] = ""
    told = json.loads(Path("run/recipe.json").read_text())["recipe"]["network"]
    assert told["name"] == "nets:small" and len(told["code"]) == 16
    assert "--with nets" in ask("sample", "run", "--n", 2, "--device", "cpu").err
    assert ask("sample", "run", "--n", 2, "--device", "cpu", "--with", "nets").code == 0


NET = """import numpy as np
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, channels, out_channels, kind):
        super().__init__()
        self.kind, self.held = kind, torch.from_numpy(np.ones(8, np.float32))
        self.into, self.told = nn.Conv2d(channels, 8, 3, padding=1), nn.Linear(8, 8)
        self.out = nn.Conv2d(8, out_channels, 3, padding=1)

    def forward(self, x, c_noise, label=None):
        waves = {
            "buffer": lambda: torch.arange(8, device=x.device),
            "usual device": lambda: torch.arange(8),
            "cpu": lambda: torch.ones(8, device="cpu"),
            "held": lambda: self.held,
            "value": lambda: torch.ones(8, device=x.device) * float(x.sum()),
            "numpy": lambda: torch.from_numpy(np.ones(8, np.float32) * x.detach().cpu().numpy().mean()),
        }[self.kind]()
        told = self.told(c_noise.reshape(-1, 1).expand(len(x), 1) * waves)
        return self.out(torch.relu(self.into(x) + told[:, :, None, None]))


def net(channels, out_channels, classes, size, kind: str = "buffer"):
    \"\"\"A small network.\"\"\"
    return Net(channels, out_channels, kind)
"""


@pytest.mark.parametrize("kind", ["usual device", "cpu", "held"])
def test_a_network_that_makes_tensors_of_its_own_is_counted(kind: str, tmp_path: Path, ask) -> None:
    """As one that makes them where its input is; in bf16 its memory too, which torch alone refuses to count."""
    Path("maker_of_tensors.py").write_text(NET)
    asked = [
        "edm-digits",
        "network=maker_of_tensors:net",
        "train.optimizer=adam",
        "data.labels=false",
        "data.augment=0",
    ]
    said = [ask("explain", *asked, f"network.kind={each}").out for each in ("buffer", kind)]
    told = [[line.strip() for line in text.splitlines()] for text in said]
    counts = [[line for line in lines if line.startswith(("parameters", "forward"))] for lines in told]
    assert counts[0] == counts[1] and len(counts[0]) == 2 and any(line.startswith("memory") for line in told[1])
    if kind == "held":
        words = ["train.images=32", "train.batch=16", "sample.grid.steps=2", "train.sheet_every=1000000"]
        words += [f"network.kind={kind}", "--out", "run", "--device", "cpu", "--quiet"]
        assert ask("train", *asked, *words).code == 0


@pytest.mark.parametrize("kind", ["value", "numpy"])
def test_a_network_that_looks_at_values_is_told_that_it_may_not(kind: str, tmp_path: Path, ask) -> None:
    Path("maker_of_tensors.py").write_text(NET)
    said = ask(
        "explain",
        "edm-digits",
        "network=maker_of_tensors:net",
        f"network.kind={kind}",
        "data.labels=false",
        "data.augment=0",
    )
    assert said.code == 2 and "may ask tensors for shapes and not for values" in said.err


@pytest.mark.parametrize("axis", ["data", "extractor"])
def test_names_in_text_fields_are_parts_too(axis: str) -> None:
    Path("more.py").write_text(
        "from sfumato.data.digits import digits\n"
        "from sfumato.metrics.extractors.pixels import pixels\n"
        'def some(*, split: str = "train"):\n    """Digits again."""\n    return digits(split=split)\n'
        'def plain(shape):\n    """Pixels again."""\n    return pixels(shape)\n'
    )
    from sfumato.data import load
    from sfumato.metrics.features import extractor

    make: Callable[[], Any] = lambda: load("more:some") if axis == "data" else extractor("more:plain", (1, 8, 8))  # noqa: E731
    with pytest.raises(UnknownNameError, match="a file does not decide what is imported"):
        make()
    outside.allow("more")
    assert make() is not None


# what a file names is not


def test_a_run_that_names_a_module_is_refused_until_a_person_names_it(run: Path, ask, monkeypatch) -> None:
    words = ("sample", run, "--n", 2, "--device", "cpu")
    said = ask(*words)
    assert said.code == 2 and "allow it: --with mine, SFUMATO_WITH=mine, or sfumato.allow('mine')" in said.err
    assert not Path("imported").exists() and "mine" not in sys.modules
    assert ask(*words, "--sampler", "heun").code == 0  # which needs no outside code
    assert not Path("imported").exists()
    monkeypatch.setenv("SFUMATO_WITH", "other, mine")
    assert ask(*words).code == 0 and Path("imported").exists()
    monkeypatch.setenv("SFUMATO_WITH", "")
    assert ask(*words).code == 2
    sfumato.allow("mine")
    assert ask(*words).code == 0


def test_changed_and_missing_code_is_refused_with_both_hashes(run: Path, ask) -> None:
    words = ("sample", run, "--n", 2, "--device", "cpu", "--with", "mine")
    before = json.loads((run / "recipe.json").read_text())["recipe"]["sample"]["sampler"]["code"]
    Path("mine.py").write_text(WALK + "# changed\n")
    said = ask(*words)
    now = outside.code_of(sys.modules["mine"].walk)
    assert said.code == 2 and before in said.err and now in said.err and before != now
    assert "Restore that code, or choose the sampler anew: sampler=mine:walk" in said.err
    assert ask(*words, "sampler=mine:walk").code == 0
    Path("mine.py").unlink()
    sys.modules.pop("mine")
    assert "needs the module mine, which is not there" in ask(*words).err


def test_nothing_is_imported_from_inside_a_run(run: Path, ask, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.move("mine.py", run / "mine.py")
    monkeypatch.chdir(run)
    said = ask("sample", run, "--n", 2, "--device", "cpu", "--with", "mine")
    assert said.code == 2 and "nothing is imported from a run" in said.err and "mine" not in sys.modules
    monkeypatch.chdir(run.parent)
    said = ask("sample", run, "--sampler", f"{run.name}.mine:walk", "--device", "cpu")
    assert said.code == 2 and "nothing is imported from a run" in said.err and f"{run.name}.mine" not in sys.modules


EVIL = {"room": "cli", "name": "studies", "options": {"folder": "/tmp", "out": "precious.txt"}}
FOREIGN = [
    EVIL,
    {"axis": "cli", "name": "studies", "options": {"folder": "/tmp"}},
    {"axis": "network", "name": "unet", "options": {}},
    {"room": "recipes", "name": "edm-digits", "options": {}},
    {"axis": "../os", "name": "system", "options": {}},
]
PATHS = ["schedule", "target", "network", "c_noise", "draw", "weighting", "objective"]
PATHS += ["train.optimizer", "train.rate", "sample.sampler", "sample.grid"]


def changed(tree: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    *keys, last = path.split(".")
    node = tree
    for key in keys:
        node = node[key]
    node[last] = value
    return tree


@pytest.mark.parametrize("evil", FOREIGN, ids=lambda tree: str(tree.get("axis", tree.get("room"))))
@pytest.mark.parametrize("path", PATHS)
def test_a_part_of_another_axis_is_refused_for_every_field(path: str, evil: Any, monkeypatch) -> None:
    if (path, evil.get("axis")) == ("network", "network"):
        evil = {"axis": "sampler", "name": "heun", "options": {}}
    tree = find("recipe", "edm-digits")().to_json()
    monkeypatch.setattr("importlib.import_module", lambda name, *a: pytest.fail(f"{name} was imported"))
    with pytest.raises(RecipeError, match=f"recipe.{path} must be a part of the axis"):
        Recipe.from_json(changed(tree, path, evil))


@pytest.mark.parametrize("place", ["recipe.json", "state.json", "picture"])
def test_no_file_calls_a_command(place: str, trained: Path, tmp_path: Path, ask) -> None:
    Path("precious.txt").write_text("dear")
    folder = Path(shutil.copytree(trained, tmp_path / "run"))
    words: list[object] = ["sample", folder, "--n", 2, "--device", "cpu"]
    if place == "recipe.json":
        tree = json.loads((folder / "recipe.json").read_text())
        (folder / "recipe.json").write_text(json.dumps({**tree, "recipe": {**tree["recipe"], "schedule": EVIL}}))
    elif place == "state.json":
        state = next(folder.glob("checkpoints/*/state.json"))
        _rewrite(state, changed(json.loads(state.read_text()), "recipe.schedule", EVIL))
    else:
        assert ask("sample", folder, "--images", "im", "--n", 1, "--device", "cpu").code == 0
        picture, made = read(tmp_path / "im" / "seed-000000000.png")
        made["settings"] = json.dumps(changed(json.loads(made["settings"]), "sample.sampler", EVIL))
        picture.save("evil.png", pnginfo=signed(picture, made))
        words = ["sample", folder, "--like", "evil.png", "--device", "cpu"]
    said = ask(*words)
    assert said.code == 2 and "must be a part of the axis" in said.err and "Traceback" not in said.err
    assert Path("precious.txt").read_text() == "dear"


def _rewrite(file: Path, tree: dict[str, Any]) -> None:
    """Write a file of a checkpoint with the hash that its manifest wants, as whoever means harm would."""
    import hashlib

    file.write_text(json.dumps(tree))
    manifest = json.loads((file.parent / "MANIFEST.json").read_text())
    sha256 = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest["files"][file.name] |= {"size": file.stat().st_size, "sha256": sha256}
    (file.parent / "MANIFEST.json").write_text(json.dumps(manifest))


def test_a_picture_that_names_a_module_is_refused(trained: Path, tmp_path: Path, ask) -> None:
    words = ["--images", "im", "--n", 1, "--device", "cpu"]
    assert ask("sample", trained, "sampler=mine:walk", *words).code == 0
    os.environ["SFUMATO_WITH"] = ""
    sys.modules.pop("mine")
    like = ["sample", trained, "--like", "im/seed-000000000.png", "--out", "again.png", "--device", "cpu"]
    said = ask(*like)
    assert said.code == 2 and "--with mine" in said.err and "mine" not in sys.modules
    assert "the same, pixel for pixel" in ask(*like, "--with=mine").out


def test_an_earlier_run_reads_as_today_and_keeps_its_hash() -> None:
    saved = Path(__file__).parents[1] / "runs" / "saved" / "run"
    told = json.loads((saved / "recipe.json").read_text())["recipe"]
    recipe = Run.open(saved).recipe
    assert told["train"]["optimizer"]["room"] == "training.optim" and recipe.train.optimizer.axis == "optimizer"
    assert recipe.hash == "605abcad8c4589ed"  # as its results say
    assert recipe.to_json()["train"]["optimizer"]["axis"] == "optimizer"
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert isinstance(sfumato.load(saved, device="cpu"), Model)
    assert Image.open(saved.parent / "images" / "seed-000000000.png").text  # type: ignore[attr-defined]
