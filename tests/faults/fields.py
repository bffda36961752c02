"""Every field of a recipe with values to try, and what may become of one: two steps and an image, or a refusal."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import math
import re
import signal
import types
import typing
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any

from hypothesis import strategies as st

from sfumato.cli import main
from sfumato.core.axes import AXES
from sfumato.core.find import entries, hints_of, options_of
from sfumato.runs.check import check
from sfumato.runs.override import override
from sfumato.runs.plan import plan
from sfumato.runs.recipe import Part, Recipe, Shape

SECONDS, WAITING = 30, 300  # of this process and of the clock; more is a hang
UNET = ("network.width=8", "network.blocks=1", "network.mult=1,1", "network.attention=()", "network.embedding=16")
COMMON = (
    *("data.first=64", "train.images=32", "train.batch=16", "train.precision=fp32", "train.log_every=16"),
    *("train.sheet_every=1000000", "train.compile=off", "sample.batch=64", "evaluate.extractor=pixels"),
    *("ema.power=0.05,0.10", "ema.use=power-0.10"),
)
EDM = ("edm-digits", *UNET, "train.optimizer=adam", *COMMON, "sample.grid.steps=2")
CHAIN = (
    *("edm-digits", *UNET, "train.optimizer=adam", *COMMON, "schedule=linear", "schedule.steps=50", "draw=uniform"),
    *("target=eps", "c_noise=index", "c_in=one", "weighting=simple", "sample.sampler=ancestral", "sample.grid=full"),
)
FLOW = (
    *("edm-digits", *UNET, "train.optimizer=adam", *COMMON, "schedule=flow", "draw=uniform", "target=flow"),
    *("c_noise=flow-time", "c_in=one", "weighting=simple", "sample.sampler=euler", "sample.grid=flow"),
    "sample.grid.steps=2",
)
SMALL = {  # so little of every network that two steps take no time
    "adm": "width=8 mult=1,1 blocks=1 attention=() head_width=8 groups=4",
    "adm-classifier": "width=8 mult=1,1 blocks=1 attention=(8,) head_width=8 groups=4",
    "autoencoder": "factor=2 latents=1 width=8 mult=1",
    "cifar-unet": "widths=8,8,8 middle=16,8 up=8,8 heads=2 embedding=16",
    "condnorm-unet": "width=8 depths=1,1 attention=() heads=2,2,2",
    "convnet": "widths=8,8,8,8 embedding=16 frequencies=8",
    "dcgan": "latent=8 up=8,8 down=8,8",
    "ddpm": "width=8 mult=1,1 blocks=1 attention=() groups=4",
    "dit": "width=16 depth=1 heads=2",
    "edm2": "width=8 mult=1,1 blocks=1 attention=() head_width=8",
    "jit": "width=16 depth=1 heads=2 bottleneck=8",
    "lsgm": "factor=2 latents=1 width=8 mult=1 prior=8 prior_mult=1,1 prior_blocks=1 attention=() embedding=16",
    "sngan": "latent=8 up=8 down=8 flat=0",
    "songunet": "width=8 mult=1,1 blocks=1 attention=()",
    "unet": " ".join(word.removeprefix("network.") for word in UNET),
}
LEARNED = (*(word for word in CHAIN if not word.startswith("weighting")), "variance=range")
TIMED = (*EDM, "draw=uniform")
CLASSIFIER = ("adm-digits-classifier", *(f"network.{word}" for word in SMALL["adm-classifier"].split()), *COMMON[:6])
GAN = ("dcgan-digits", *(f"network.{word}" for word in SMALL["dcgan"].split()), *COMMON)
CODER = ("autoencoder-digits", *(f"network.{word}" for word in SMALL["autoencoder"].split()), *COMMON)
JOINT = ("lsgm-digits", *(f"network.{word}" for word in SMALL["lsgm"].split()), *COMMON, "sample.grid.steps=2")
WITHOUT_IMAGES = (CLASSIFIER[0], CODER[0])  # which help others
BASES = {"edm": EDM, "timed": TIMED, "chain": CHAIN, "flow": FLOW}
BASES |= {"learned": LEARNED, "classifier": CLASSIFIER, "gan": GAN, "coder": CODER, "joint": JOINT}
WHOLE = ("-1", "0", "1", "3", "1000000000000", "18446744073709551616")
REAL = ("-1", "0", "1e-9", "0.5", "1", "1.5", "1e30", "inf", "nan")
TEXTS = ("", "nosuch", "a,b", "0", "none", "-1,2", "1,2,3", "é\u202e", "1e400")


def values_of(hint: Any) -> tuple[str, ...]:
    """Return the texts to try for a field of a type: each of its choices, or both sides of every usual bound."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is typing.Literal:
        return (*map(str, args), "nosuch")
    if typing.get_origin(hint) is tuple:
        each = values_of(args[0])
        return ("()", *each, f"{each[2]},{each[2]}")
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return ("none", *dict.fromkeys(value for arm in args if arm is not type(None) for value in values_of(arm)))
    return {int: WHOLE, float: REAL, bool: ("true", "false", "2")}.get(hint, TEXTS)


ODD = st.integers(-(2**80), -1) | st.integers(0, 40) | st.integers(2**53, 2**80)  # a large network is no fault
LETTERS = st.characters(exclude_categories=["Cs"], exclude_characters="/~\0")  # none of a path elsewhere


def drawn(hint: Any) -> st.SearchStrategy[str]:
    """Return texts drawn at random for a field of a type: numbers of every size, names, lists of them."""
    args = typing.get_args(hint)
    if typing.get_origin(hint) is Annotated:
        return drawn(args[0])
    if typing.get_origin(hint) is tuple:
        return st.lists(drawn(args[0]), max_size=4).map(",".join)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return st.just("none") | st.one_of([drawn(arm) for arm in args if arm is not type(None)])
    numbers = {int: ODD.map(str), float: st.floats().map(repr), bool: st.sampled_from(["true", "false", "2"])}
    return numbers.get(hint, st.text(LETTERS, max_size=12))


def fields() -> Iterator[tuple[str, Any]]:
    """Yield the dotted path and type of every field that is no part."""
    yield from _below(Recipe("any"), "")


def _below(node: Any, prefix: str) -> Iterator[tuple[str, Any]]:
    hints = typing.get_type_hints(type(node))
    for field in dataclasses.fields(node):
        path, value = prefix + field.name, getattr(node, field.name)
        if path in ("name", "shape", "latent", "sample.guides"):
            continue
        if dataclasses.is_dataclass(value) and not isinstance(value, Part):
            yield from _below(value, f"{path}.")
        elif not isinstance(value, Part):
            yield path, hints[field.name]


def parts() -> Iterator[tuple[str, str, str]]:
    """Yield (path, axis, name) of every part that a field of a recipe can hold."""
    recipe = Recipe("any")
    for prefix, node in (("", recipe), ("train.", recipe.train), ("sample.", recipe.sample)):
        for field in dataclasses.fields(node):
            if isinstance(value := getattr(node, field.name), Part):
                yield from ((prefix + field.name, value.axis, name) for name in entries(value.axis))
    yield from (("sample.guidance", "guidance", name) for name in entries("guidance"))


def options(axis: str, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the name and type of every option of a part."""
    entry = entries(axis)[name]
    hints = hints_of(entry)
    yield from ((o, hints[o]) for o in options_of(entry, fixed=AXES[axis].fixed))


@dataclasses.dataclass(frozen=True)
class Fate:
    """What became of a trial."""

    code: int | None
    said: str
    wrong: str = ""


class _Hang(BaseException):
    """The trial took too long."""


def fate(words: Sequence[str], folder: Path, names: Sequence[str] = ()) -> Fate:
    """Train two steps and sample an image, and judge what became of it.

    Arguments:
        words: The recipe and its fields.
        folder: Of the run; new.
        names: Words of which a refusal must hold one: the field's own.
    """

    def ring(*_: object) -> None:
        raise _Hang

    said, before = io.StringIO(), [signal.signal(number, ring) for number in (signal.SIGALRM, signal.SIGPROF)]
    signal.setitimer(signal.ITIMER_REAL, WAITING)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said), warnings.catch_warnings():
            code = main(["train", *words, "--out", str(folder), "--device", "cpu", "--quiet"])
            if code == 0 and words[0] not in WITHOUT_IMAGES:
                image = folder / "one.png"
                code = main(["sample", str(folder), "--n", "1", "--out", str(image), "--device", "cpu"])
    except _Hang:
        return Fate(None, said.getvalue(), "hangs")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGALRM, before[0])
        signal.signal(signal.SIGPROF, before[1])
    return Fate(code, said.getvalue(), _wrong(code, said.getvalue(), folder, names))


def _wrong(code: int, said: str, folder: Path, names: Sequence[str]) -> str:
    if "Traceback" in said or code not in (0, 2, 4):
        return "a stack trace"
    if code == 0:
        records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
        losses = [record["loss"] for record in records]
        if not losses or not all(loss is not None and math.isfinite(loss) for loss in losses):
            return f"losses {losses}"
        return "" if list((folder / "checkpoints").glob("step-*")) else "nothing saved"
    message = said[said.rfind("error: ") :].strip()
    sentences = re.findall(r"[.!?](?:\s|$)", message)
    if not message.startswith("error: ") or not 1 <= len(sentences) <= 4:
        return f"{len(sentences)} sentences"
    return "" if code == 4 or not names or any(name in message for name in names) else f"none of {names} named"


def small(path: str, name: str) -> tuple[str, ...]:
    """Return the words that keep a part small: a network narrow, a table of levels short."""
    if path == "network":
        return tuple(f"{path}.{word}" for word in SMALL[name].split())
    if (path, name) == ("sample.grid", "listed"):
        return ("sample.grid.entries=50,21,1",)
    if (path, name) == ("sample.sampler", "adaptive"):
        return ("sample.sampler.rtol=0.1", "sample.sampler.atol=0.1")
    return ("schedule.steps=50",) if path == "schedule" and "steps" in dict(options("schedule", name)) else ()


def home(path: str, name: str) -> tuple[str, ...]:
    """Return the words of a recipe that holds a part and can be trained; that of EDM if none can."""
    for more in ((), (f"{path}.steps=2",)):  # a grid that has no number of steps of its own
        for base in BASES.values():
            if base[0] in WITHOUT_IMAGES and path.startswith("sample."):
                continue
            words = [f"{path}={name}", *more, *small(path, name)]
            with contextlib.suppress(ValueError):
                recipe = override(entries("recipe")[base[0]](), [*base[1:], *words])
                check(plan(dataclasses.replace(recipe, shape=Shape(1, 8, 8, tuple("0123456789")))))
                return (*base, f"{path}={name}", *more)
    return (*EDM, f"{path}={name}")
