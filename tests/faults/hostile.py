"""Inputs that nobody meant: the files of a person, changed at random, and how a command answers to them.

Each input is a pure function of its number, so that one that fails can be looked at again: ``Fuzz(work).try_one(n)``.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import resource
import shutil
import signal
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.hostile_changes import (
    TEXTS,
    VALUES,
    changed_bytes,
    changed_json,
    changed_kind,
    changed_tree,
    changed_zip,
    huge_png,
    png,
    settle,
)
from tests.faults.hostile_files import HostileFiles

SECONDS = 10  # of this process: others may share the machine
WAITING = 200  # seconds of the clock, for what waits and does not compute
MEMORY = 1 << 30


class SlowError(BaseException):
    """An input that took too long."""


@dataclass(frozen=True)
class Answer:
    """How a command answered.

    Attributes:
        code: Its exit code.
        said: What it wrote to both streams.
        seconds: How long it took.
        memory: By how many bytes this process grew at its most.
    """

    code: int
    said: str
    seconds: float
    memory: int

    def fault(self) -> str:
        """Say what is wrong with the answer; "" if nothing is."""
        if self.code not in (0, 2, 3):
            return f"exit code {self.code}"
        if "Traceback" in self.said:
            return "a trace"
        if self.code and not any(
            line.startswith(("error: ", "BAD ")) or "─" in line for line in self.said.splitlines()
        ):
            return "no sentence"
        if self.seconds > SECONDS:
            return f"{self.seconds:.1f} s"
        return f"{self.memory / 2**20:,.0f} MiB" if self.memory > MEMORY else ""


def answer(command: Callable[[], int]) -> Answer:
    """Run a command in this process under an alarm and a limit on its memory."""
    import time

    def late(*_: Any) -> None:
        raise SlowError

    out = io.StringIO()
    before, limits = _peak(reset=True), resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + 3 * MEMORY, limits[1]))
    old = [signal.signal(number, late) for number in (signal.SIGALRM, signal.SIGPROF)]
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    signal.setitimer(signal.ITIMER_PROF, 2 * SECONDS)
    began = time.process_time()
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = command()
    except SlowError:
        code = -1
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGALRM, old[0])
        signal.signal(signal.SIGPROF, old[1])
        resource.setrlimit(resource.RLIMIT_AS, limits)
    return Answer(code, out.getvalue(), time.process_time() - began, _peak() - before)


def _peak(reset: bool = False) -> int:
    """Return the most memory that this process has held since it was last reset, in bytes."""
    if reset:
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    text = Path("/proc/self/status").read_text()
    return int(text.split("VmHWM:")[1].split()[0]) * 1024


def _mapped() -> int:
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


class Fuzz(HostileFiles):
    """Seeds of every kind in a folder, and inputs made of them by number.

    Arguments:
        work: An empty folder.
    """

    def __init__(self, work: Path) -> None:
        from tests.cli.conftest import SMALL

        from sfumato.cli import main

        self.main, self.work, self.seeds, self.place = main, work, work / "seeds", work / "try"
        self.run = self.seeds / "run"
        self.seeds.mkdir(parents=True)
        quiet = ["--device", "cpu", "--quiet"]
        kept = ["ema.snapshots=2", "ema.power=0.05,0.10", "ema.use=power-0.10", "train.track=csv"]
        self.small = [*SMALL, *kept, "train.evaluate_every=64", "evaluate.quick=40", "train.sheet_every=1000000"]
        assert main(["train", "edm-digits", *self.small, "--out", str(self.run), *quiet]) == 0
        assert main(["sample", str(self.run), "--images", str(self.seeds / "made"), "--n", "2", "--device", "cpu"]) == 0
        assert main(["evaluate", str(self.run), "--n", "100", *quiet]) == 0
        self._arrays()
        self._images()
        self._foreign()
        self.make_files()
        self.kinds = [name.removeprefix("try_") for name in dir(self) if name.startswith("try_") and name != "try_one"]

    def _arrays(self) -> None:
        import numpy as np

        g = np.random.Generator(np.random.Philox(1))
        images = g.integers(0, 256, (60, 8, 8), dtype=np.uint8)
        np.savez_compressed(self.seeds / "images.npz", images=images, labels=np.arange(60) % 3)
        np.save(self.seeds / "images.npy", images)
        about = np.array(json.dumps({"extractor": "pixels", "content_hash": "x"}))
        np.savez(self.seeds / "stats.npz", mean=np.zeros(64), cov=np.eye(64), n=np.int64(100), about=about)

    def _images(self) -> None:
        r = random.Random(0)
        for k in range(2):
            (self.seeds / "folder" / f"class{k}").mkdir(parents=True)
            for i in range(4):
                (self.seeds / "folder" / f"class{k}" / f"{i}.png").write_bytes(png(r))
        with zipfile.ZipFile(self.seeds / "set.zip", "w") as archive:
            for i in range(6):
                archive.writestr(f"00000/img{i}.png", png(r))
            pairs = [[f"00000/img{i}.png", i % 2] for i in range(6)]
            archive.writestr("dataset.json", json.dumps({"labels": pairs}))
        with contextlib.suppress(ImportError):
            import lmdb

            with lmdb.open(str(self.seeds / "lmdb"), map_size=1 << 24) as database, database.begin(write=True) as t:
                for i in range(120):
                    t.put(f"key{i:05d}".encode(), png(r, 48))

    def _foreign(self) -> None:
        import torch

        tensors = {"conv_in.weight": torch.zeros(4, 1, 3, 3), "time_embedding.linear_1.weight": torch.zeros(8, 4)}
        torch.save({"model": tensors}, self.seeds / "model.pt")
        from safetensors.torch import save_file

        (self.seeds / "diffusers" / "unet").mkdir(parents=True, exist_ok=True)
        (self.seeds / "diffusers" / "scheduler").mkdir(exist_ok=True)
        save_file(tensors, self.seeds / "diffusers" / "unet" / "diffusion_pytorch_model.safetensors")
        config = {
            "_class_name": "UNet2DModel",
            "sample_size": 8,
            "in_channels": 1,
            "out_channels": 1,
            "block_out_channels": [8, 8],
            "layers_per_block": 1,
            "norm_num_groups": 4,
            "down_block_types": ["DownBlock2D", "AttnDownBlock2D"],
            "up_block_types": ["AttnUpBlock2D", "UpBlock2D"],
        }
        (self.seeds / "diffusers" / "unet" / "config.json").write_text(json.dumps(config))
        scheduler = {
            "_class_name": "DDPMScheduler",
            "num_train_timesteps": 1000,
            "beta_schedule": "linear",
            "beta_start": 0.0001,
            "beta_end": 0.02,
            "prediction_type": "epsilon",
        }
        (self.seeds / "diffusers" / "scheduler" / "scheduler_config.json").write_text(json.dumps(scheduler))

    def try_one(self, number: int) -> tuple[list[str], Answer]:
        """Make input `number`, give it to a command, and return the command and its answer."""
        r = random.Random(number)
        kind = self.kinds[number % len(self.kinds)]
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        words = getattr(self, f"try_{kind}")(r)
        return words, answer(lambda: self.answer_to(words))

    def _copy(self, name: str) -> Path:
        """Copy a seed to where it may be changed."""
        source, target = self.seeds / name, self.place / name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        return target

    def _sample(self, run: Path, r: random.Random) -> list[str]:
        words = [
            ["sample", str(run), "--n", "2", "--device", "cpu"],
            ["runs", str(self.place)],
            ["report", str(run)],
            ["ema", str(run), "--width", "0.08"],
            ["explain", str(run)],
        ]
        return r.choice([words[0], words[0], *words])

    def try_recipe(self, r: random.Random) -> list[str]:
        run = self._copy("run")
        (changed_kind if r.random() < 0.1 else changed_json)(run / "recipe.json", r)
        return self._sample(run, r)

    def try_checkpoint(self, r: random.Random) -> list[str]:
        run = self._copy("run")
        folder = r.choice([*(run / "checkpoints").iterdir(), *(run / "snapshots").iterdir()])
        file = folder / r.choice(["MANIFEST.json", "MANIFEST.json", "state.json", "network.safetensors"])
        if not file.exists():
            file = folder / "MANIFEST.json"
        if r.random() < 0.15:
            changed_kind(file, r)
        elif file.suffix == ".json":
            changed_json(file, r)
        else:
            file.write_bytes(changed_bytes(file.read_bytes(), r))
        if file.name != "MANIFEST.json" and r.random() < 0.8:
            settle(folder)
        return self._sample(run, r)

    def try_log_and_results(self, r: random.Random) -> list[str]:
        run = self._copy("run")
        files = [run / "metrics.jsonl", *(run / "results").glob("*.json")]
        file = r.choice(files)
        if file.suffix == ".json":
            changed_json(file, r)
        else:
            file.write_bytes(changed_bytes(file.read_bytes(), r))
        results = [str(file) for file in files[1:]]
        return r.choice(
            [
                ["report", str(run)],
                ["runs", str(self.place)],
                ["compare", *results, *results],
                ["curves", str(run), "--out", str(self.place / "c.png")],
            ]
        )

    def try_picture(self, r: random.Random) -> list[str]:
        from PIL import Image
        from PIL.PngImagePlugin import PngInfo

        made = self._copy("made")
        file = sorted(made.glob("*.png"))[0]
        kind = r.random()
        if kind < 0.3:
            file.write_bytes(changed_bytes(file.read_bytes(), r))
        elif kind < 0.8:
            with Image.open(file) as picture:
                picture.load()
                carried = json.loads(picture.info["sfumato"])
                if r.random() < 0.5:
                    settings = changed_tree(json.loads(carried["settings"]), r)
                    carried["settings"] = json.dumps(settings)
                else:
                    carried = changed_tree(carried, r)
                info = PngInfo()
                info.add_text("sfumato", json.dumps(carried), zip=True)
                picture.save(file, pnginfo=info)
        elif kind < 0.9:
            changed_json(made / "settings.json", r)
        else:
            changed_kind(file, r)
        if kind >= 0.8 and kind < 0.9 or r.random() < 0.2:
            return ["sample", str(self.run), "--images", str(made), "--n", "2", "--device", "cpu"]
        out = str(self.place / "again.png")
        return ["sample", str(self.run), "--like", str(file), "--out", out, "--device", "cpu"]

    def try_arrays(self, r: random.Random) -> list[str]:
        name = r.choice(["images.npz", "images.npz", "images.npy", "stats.npz", "stats.npz"])
        file = self._copy(name)
        if r.random() < 0.05:
            changed_kind(file, r)
        elif file.suffix == ".npz":
            changed_zip(file, r)
        else:
            file.write_bytes(changed_bytes(file.read_bytes(), r))
        if name == "images.npz" and r.random() < 0.5:
            return ["data", "check", f"npz:{file}"]
        other = str(self.seeds / "images.npy")
        return ["fd", str(file), other, "--extract", "pixels", "--out", str(self.place / "s.json"), "--quiet"]

    def try_folder(self, r: random.Random) -> list[str]:
        folder = self._copy("folder")
        file = r.choice(sorted(folder.rglob("*.png")))
        match r.randrange(6):
            case 0 | 1:
                file.write_bytes(changed_bytes(file.read_bytes(), r))
            case 2:
                file.write_bytes(huge_png(*r.choice([(20_000, 20_000), (2**31 - 1, 1), (8000, 8000), (0, 5)])))
            case 3:
                changed_kind(file, r)
            case 4:
                names = [b"caf\xe9.png", b"a\x1b[31m.png", b"b\n.png", b"-x.png", ("x" * 240 + ".png").encode()]
                Path(os.fsdecode(os.fsencode(file.parent) + b"/" + r.choice(names))).write_bytes(file.read_bytes())
            case 5:
                (folder / "dataset.json").write_bytes(r.choice(TEXTS))
        return self._data(folder, r)

    def try_archive(self, r: random.Random) -> list[str]:
        file = self._copy("set.zip")
        changed_zip(file, r)
        return self._data(file, r)

    def try_database(self, r: random.Random) -> list[str]:
        if not (self.seeds / "lmdb").is_dir():
            return self.try_archive(r)
        folder = self._copy("lmdb")
        file = folder / "data.mdb"
        content = bytearray(file.read_bytes())
        if r.random() < 0.3:
            content = content[: r.randrange(len(content))]
        for _ in range(r.choice([1, 5, 50])):
            if content:
                content[
                    4096 * r.randrange(-(-len(content) // 4096)) + r.randrange(40)
                    if r.random() < 0.5
                    else r.randrange(len(content)) :
                ][:1] = r.randbytes(1)
                at = 4096 * r.randrange(max(1, len(content) // 4096)) + r.randrange(40)
                if at < len(content):
                    content[at] = r.randrange(256)
        file.write_bytes(content)
        return ["data", "check", f"lmdb:{folder}"]

    def _data(self, source: Path, r: random.Random) -> list[str]:
        out = str(self.place / "out.zip")
        return r.choice([["data", "check", str(source)], ["data", "prepare", str(source), out, "--size", "4"]])

    def try_foreign(self, r: random.Random) -> list[str]:
        if r.random() < 0.5:
            file = self._copy("model.pt")
            file.write_bytes(changed_bytes(file.read_bytes(), r))
        else:
            file = self._copy("diffusers")
            config = r.choice(sorted(file.rglob("*.json")))
            if r.random() < 0.8:
                changed_json(config, r)
            else:
                weights = next(file.rglob("*.safetensors"))
                weights.write_bytes(changed_bytes(weights.read_bytes(), r))
        return ["import", str(file), "--out", str(self.place / "imported")]

    def try_words(self, r: random.Random) -> list[str]:
        """Words that no person would type."""
        fields = [
            "sampler",
            "grid",
            "grid.steps",
            "guidance",
            "interval",
            "threshold_quantile",
            "batch",
            "sampler.churn",
            "guides",
            "autoguidance",
            "classifier",
        ]
        value = r.choice([v for v in VALUES if not isinstance(v, str) or "\0" not in v])
        text = str(value)[:5000].encode("utf-8", "replace").decode()
        return [
            "sample",
            str(self.run),
            "--n",
            "2",
            "--device",
            "cpu",
            f"{r.choice(fields)}={text}",
            "--out",
            str(self.place / "x.png"),
        ]


def outside(folder: Path) -> Iterator[Path]:
    """Yield every file of a folder with its time: what must not change."""
    yield from sorted(path for path in folder.rglob("*") if path.is_file())
