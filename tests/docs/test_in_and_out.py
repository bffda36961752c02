"""The commands of "Bring a checkpoint in" and "Take a model out" run, one page after the other."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from tests.faults.test_foreign_checkpoints import unet_folder

from sfumato.cli import main
from sfumato.interop.schedulers import CLASSES
from sfumato.runs.checkpoint import write_json
from sfumato.runs.run import Run

GUIDES = Path(__file__).parents[2] / "docs" / "how-to"
PAGES = [GUIDES / "bring-a-checkpoint-in.md", GUIDES / "take-a-model-out.md"]


@pytest.mark.slow
def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.chdir(tmp_path)
    unet_folder(Path("cat") / "unet")
    Path("cat/scheduler").mkdir()
    write_json(Path("cat/scheduler/scheduler_config.json"), {"_class_name": "DDIMScheduler"})
    for page in PAGES:
        for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            for line in block.splitlines():
                program, *words = shlex.split(line)
                assert program == "sfumato" and main(words) == 0, (line, capsys.readouterr())
    printed = capsys.readouterr().out
    assert "num_inference_steps=10" in printed and Path("compact.png").stat().st_size > 500
    again = Run.open("runs/cat-again").recipe.sample
    assert (again.grid.name, again.grid.options) == ("trailing", {"steps": 10})


def test_the_page_names_no_scheduler_that_is_refused() -> None:
    read = [name for name, known in CLASSES.items() if known.read]
    assert {name.removesuffix("Scheduler") for name in read} == {
        "DDPM", "DDPMParallel", "DDIM", "DDIMParallel", "PNDM", "EulerDiscrete", "EulerAncestralDiscrete",
        "HeunDiscrete", "LMSDiscrete", "DPMSolverMultistep", "UniPCMultistep", "FlowMatchEulerDiscrete",
        "FlowMatchHeunDiscrete", "EDMEuler", "EDMDPMSolverMultistep", "DEISMultistep", "DPMSolverSinglestep",
        "KDPM2Discrete", "KDPM2AncestralDiscrete",
    }, "say so in docs/how-to/bring-a-checkpoint-in.md"  # fmt: skip
