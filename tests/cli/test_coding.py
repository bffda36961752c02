"""``sfumato compress`` and ``decompress``: another process gets back what was sent, or says in one message why not."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from tests.cli.options import beside
from tests.processes.processes import Alone, command_line

from sfumato.cli.compress import over_the_kl

pytest.importorskip("constriction")

QUICK = ["--steps", 3, "--search", 8, "--section", 1, "--near", 0.1, "--device", "cpu"]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("coded") / "three.png"
    ramp = np.linspace(0, 255, 64).reshape(8, 8).astype(np.uint8)
    Image.fromarray(ramp).save(path)
    return path


@pytest.fixture(scope="module")
def coded(labelled: Path, image: Path) -> Path:
    from sfumato.cli import main

    words = ["compress", str(labelled), str(image), "--classes", "3", "--lossless", *map(str, QUICK)]
    assert main(words) == 0
    return image.with_suffix(".sfm")


@pytest.mark.parametrize(("over", "said"), [(0.36, "at most 36% more"), (-0.24, "at least 24% less"), (None, "")])
def test_what_symbols_cost_is_said_as_it_is(over: float | None, said: str) -> None:
    words = over_the_kl(SimpleNamespace(overhead=lambda: over))
    assert said in words and ("--search" in words) is (over is not None and over < 0) and bool(words) is bool(said)


def test_another_process_decodes_the_exact_pixels(labelled: Path, image: Path, coded: Path, tmp_path: Path) -> None:
    out = tmp_path / "back.png"
    process = Alone(command_line, [*map(str, ["decompress", labelled, coded, "-o", out]), "--device", "cpu"])
    assert process.wait() == 0, process.said()
    assert Image.open(out).tobytes() == Image.open(image).tobytes()
    said = process.said()
    assert "exact pixels" in said and f"{coded.stat().st_size:,} bytes" in said


def test_every_prefix_decodes_or_says_that_its_header_is_cut(labelled: Path, coded: Path, tmp_path: Path, cli) -> None:
    size, steps = coded.stat().st_size, []
    for first in (0, 20, 60, 62, 75, 90, size // 2, size - 1, size):
        said = cli("decompress", labelled, coded, "--first", first, "-o", tmp_path / "p.png", "--device", "cpu")
        if said.code:
            assert said.code == 2 and first < 62 and "header" in said.err and "Traceback" not in said.err
            continue
        assert Image.open(tmp_path / "p.png").size == (8, 8)
        assert ("a prefix of the file" in said.out) == (first < size)
        steps.append(3 if "exact" in said.out else int(said.out.split("step ")[1].split(" of")[0]))
    assert steps == sorted(steps) and steps[0] == 0 and len(steps) > 4


def test_prefixes_are_finished_and_shown(labelled: Path, coded: Path, tmp_path: Path, cli) -> None:
    found = []
    for finish in ("none", "ancestral", "ddim"):
        out = tmp_path / f"{finish}.png"
        said = cli(
            "decompress",
            labelled,
            coded,
            "--first",
            75,
            "--finish",
            finish,
            "-o",
            out,
            "--device",
            "cpu",
            "--strip",
            tmp_path / "strip.png",
        )
        assert said.code == 0, said.err
        found.append(Image.open(out).tobytes())
    assert len(set(found)) == 3
    assert Image.open(tmp_path / "strip.png").width > 100


def test_a_batch_of_the_data_leaves_its_rates(labelled: Path, tmp_path: Path, cli) -> None:
    out = tmp_path / "many.sfm"
    said = cli("compress", labelled, "--n", 3, "-o", out, *QUICK)
    assert said.code == 0, said.err
    for word in ("KL bits", "spent bits", "formula b/d", "over %", "frames of sections", "Above 0.1 bits/dim"):
        assert word in said.out
    result = next((labelled / "results").glob("coding-*.json"))
    tree = json.loads(result.read_text())
    result.unlink()
    assert set(tree["curves"]["coding"]["series"]) == {
        "formula (the bound)",
        "KL along the walk",
        "spent on symbols",
        "file",
    }
    assert tree["tables"]["coding"][-1]["file bytes"] == out.stat().st_size
    said = cli("decompress", labelled, out, "-o", tmp_path / "m.png", "--device", "cpu")
    assert said.code == 0 and len(list(tmp_path.glob("m-*.png"))) == 3


def test_other_models_and_damaged_files_are_refused(
    labelled: Path, unlabelled: Path, coded: Path, tmp_path: Path, cli
) -> None:
    out = tmp_path / "out.png"
    data = coded.read_bytes()
    cases = {
        "other": (unlabelled, data, "Decode it with the checkpoint"),
        "damaged": (labelled, data[:80] + bytes([data[80] ^ 1]) + data[81:], "damaged"),
        "png": (labelled, b"\x89PNG\r\n\x1a\n" + bytes(100), "Not a sfumato image file"),
        "empty": (labelled, b"", "ends within its header"),
    }
    for name, (run, content, message) in cases.items():
        (tmp_path / name).write_bytes(content)
        said = cli("decompress", run, tmp_path / name, "-o", out, "--device", "cpu")
        assert said.code == 2 and message in said.err and "Traceback" not in said.err, name
    assert not out.exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "not both"),
        (["IMAGE", "--n", 2], "not both"),
        (["--n=0"], "--n lies in"),
        (["IMAGE", "--classes", "1,2"], "one class"),
        (["IMAGE", "--steps", 1], "at least 2 steps"),
        (["IMAGE", "--rule", "gredy"], "Did you mean 'greedy'"),
        (["gone.png"], "No such file"),
        (["IMAGE", "--near", 500], "ends at a level of sigma/alpha above 0 and below"),
    ],
)
def test_bad_input_is_one_clear_message(words: list, message: str, labelled: Path, image: Path, tmp_path, cli) -> None:
    words = [image if word == "IMAGE" else word for word in words]
    out = tmp_path / "x.sfm"
    said = cli("compress", labelled, *words[:1], "-o", out, *beside(words, QUICK), *words[1:])
    assert said.code == 2, said
    assert message in said.err and "Traceback" not in said.err and not out.exists()
