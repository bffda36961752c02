"""How images are made: one value, whose words stand in every caption, file name, card, result and report.

    heun(churn=40) on karras(steps=18), guidance 2 at nsr 0.2..5, 35 network calls per image, 128 training images,
    weights power-0.10.

A `Making` is made of a recipe and of what is known of its weights (`Run.making`), or read again from a result's
provenance. A generator makes an image in one pass: it has no sampler, no grid and nothing that guides it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any, NamedTuple, Self

from sfumato.runs.guided import guidance_of, weak_of
from sfumato.runs.kinds import kind_of
from sfumato.runs.part import asks, option
from sfumato.runs.recipe import Part, Recipe, Sample

ONE_PASS = "one pass of the generator"
LONGEST = 120  # characters of a file name's part; a longer one ends in a hash


class Guide(NamedTuple):
    """One thing that guides: in words for a caption, and shortly for a file name."""

    words: str
    short: str


@dataclass(frozen=True)
class Making:
    """How images are made.

    Attributes:
        sampler: The sampler with its options, or `ONE_PASS`; "" for a classifier, which makes no images.
        grid: The grid with its options; "" for a generator and a classifier.
        guided: What guides, in words; () for nothing.
        guidance: Weight of classifier-free guidance; 1 for none.
        size: Height and width in pixels where they are not those of training.
        decoded: What decodes the latents that are walked; "" where images are.
        weights: The average of the weights; "" if unknown.
        images_seen: Training images that these weights have seen; None if unknown.
        imported: The file of another project that the weights come from; "" for a run that was trained here.
        nfe: Network calls per image, where they were counted.
        seeds: The first seed and the one after the last, where images are of consecutive seeds.
        short: Sampler, grid, guidance and size, for a file name.
        done: What was done to a picture, where the images are not made of noise alone.
    """

    sampler: str = ""
    grid: str = ""
    guided: tuple[str, ...] = ()
    guidance: float = 1.0
    size: str = ""
    decoded: str = ""
    weights: str = ""
    images_seen: int | None = None
    imported: str = ""
    nfe: float | None = None
    seeds: tuple[int, int] | None = None
    short: str = ""
    done: str = ""

    @classmethod
    def of(cls, recipe: Recipe, use: str | None = None, images_seen: int | None = None, imported: str = "") -> Self:
        """Return how a recipe's images are made.

        Arguments:
            recipe: Any recipe.
            use: The average of the weights; None for the recipe's choice.
            images_seen: Training images that the weights have seen; None if unknown.
            imported: The file that the weights were imported from; "" for none.
        """
        sample, weights = recipe.sample, use or recipe.ema.use
        if not (kind := kind_of(recipe)).walks:
            walk = ONE_PASS if kind.draws else ""
            return cls(walk, weights=weights, images_seen=images_seen, imported=imported, short=kind.name)
        guiding = guides(sample)
        size = "x".join(map(str, sample.size * 2 if len(sample.size) == 1 else sample.size))
        short = "-".join(
            [
                _short(sample.sampler),
                _safe(option(sample.grid, "called") or _short(sample.grid)),
                *(g.short for g in guiding),
                *filter(None, [size]),
            ]
        )
        if len(short) > LONGEST:
            short = f"{short[: LONGEST - 9]}-{hashlib.sha256(short.encode()).hexdigest()[:8]}"
        own = "its own autoencoder" if kind.coder is not None else ""
        coder = Path(weak_of(recipe.data.latent, "data.latent").folder).name if recipe.data.latent else own
        return cls(
            str(sample.sampler),
            _grid(sample.grid),
            tuple(g.words for g in guiding),
            sample.guidance,
            size,
            coder,
            weights,
            images_seen,
            imported,
            short=short,
        )

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Self | None:
        """Return what the provenance of a result says, also one of an earlier version; None if it says nothing."""
        if not facts.get("sampler"):
            return None
        known = {f.name: facts[f.name] for f in fields(cls) if facts.get(f.name) is not None}
        weight = known.get("guidance", 1.0)
        guided = known.get("guided", f"guidance {weight:g}" if weight != 1 else "")
        seeds = tuple(known["seeds"]) if "seeds" in known else None
        return cls(**{**known, "guided": (guided,) if guided else (), "seeds": seeds})

    def to_json(self) -> dict[str, Any]:
        """Return the keys of a result's provenance; what is unknown or as in training is left out."""
        always = {
            "sampler": self.sampler,
            "grid": self.grid,
            "guidance": self.guidance,
            "guided": ", ".join(self.guided),
        }
        more = {
            name: getattr(self, name)
            for name in ("size", "decoded", "weights", "images_seen", "imported", "nfe", "done")
        }
        found = always | {name: value for name, value in more.items() if value not in ("", None)}
        return found if self.seeds is None else found | {"seeds": list(self.seeds)}

    def pairs(self) -> dict[str, str]:
        """Return the choices by axis, for a card."""
        walked = {"sampler": self.sampler, "grid": self.grid, "guidance": ", ".join(self.guided) or "none"}
        rows = walked if self.grid else {"images": self.sampler}
        return {
            k: v
            for k, v in {**rows, "image size": self.size, "decoded by": self.decoded, "weights": self.weights}.items()
            if v
        }

    @property
    def how(self) -> str:
        """How an image is made of weights: sampler, grid, guidance, size, calls."""
        calls = "" if self.nfe is None else f"{self.nfe:g} network calls per image"
        walk = " ".join(filter(None, [self.sampler, self.grid and f"on {self.grid}"]))
        more = [self.size and f"{self.size} pixels", self.decoded and f"decoded by {self.decoded}", calls]
        return ", ".join(filter(None, [walk, *self.guided, *more]))

    @property
    def sentence(self) -> str:
        """The sentence for a caption."""
        seen = "" if self.images_seen is None else f"{self.images_seen:,} training images"
        own = [seen, self.weights and f"weights {self.weights}"]
        learned = [f"weights imported from {self.imported}"] if self.imported else own
        return f"{self.done and f'{self.done}. '}{', '.join(filter(None, [self.how, *learned]))}."

    def stem(self, usual: str) -> str:
        """Return the stem of a file name: training images seen, and what makes images.

        Arguments:
            usual: The average of the weights that is not named.
        """
        seen = [] if self.images_seen is None else [f"{self.images_seen:09d}"]
        return "-".join([*seen, self.short, *([self.weights] if self.weights != usual else [])])


def _grid(grid: Part) -> str:
    """Return a grid with its options, or the name that it was given when it was computed."""
    called = option(grid, "called")
    return f"{called} ({len(option(grid, 'sigmas'))} steps)" if called else str(grid)


def guides(sample: Sample) -> list[Guide]:
    """Return all that guides a recipe's samples, in the order in which it is applied; [] for nothing.

    >>> [g.words for g in guides(Sample(guidance=2.0, interval=(0.2, 5.0), threshold="dynamic"))]
    ['guidance 2 at nsr 0.2..5', 'dynamic threshold 0.995']
    >>> [g.short for g in guides(Sample(guidance=2.0, interval=(0.2, 5.0), autoguidance="@raw"))]
    ['auto2-@raw-nsr0.2..5', 'w2-nsr0.2..5']
    """
    return [_guide(form, sample) for form in guidance_of(sample)]


def _guide(form: Part, sample: Sample) -> Guide:
    """Return one form of guidance in words: its strength, the model that helps it, and the levels that it guides at."""
    words, short = SAID.get(form.name, lambda form: (str(form), _short(form)))(form)
    if sample.autoguidance is not None and asks(form, "weak"):
        where = weak_of(sample.autoguidance)
        helper = "@".join(str(v) for v in (Path(where.folder).name, where.step, where.use) if v is not None)
        words, short = f"{words} by {helper}", f"{short}-{helper}"
    if sample.classifier is not None and asks(form, "logits"):
        helper = Path(sample.classifier).name
        words, short = f"{words} by {helper}", f"{short}-{helper}"
    if sample.interval is not None and asks(form, "interval"):
        levels = "{:g}..{:g}".format(*sample.interval)
        words, short = f"{words} at nsr {levels}", f"{short}-nsr{levels}"
    return Guide(words, _safe(short))


def _cfg(form: Part) -> tuple[str, str]:
    by_class, ramp = ",".join(f"{w:g}" for w in option(form, "each_class")), option(form, "over_levels")
    weight = f"by class {by_class}" if by_class else f"{option(form, 'w'):g}"
    shaped, short = ("", "") if ramp == "constant" else (f" on a {ramp} ramp", f"-{ramp}")
    return f"guidance {weight}{shaped}", f"w{by_class or weight}{short}"


def _apg(form: Part) -> tuple[str, str]:
    words, short = _cfg(form)
    norm, momentum = option(form, "norm"), option(form, "momentum")
    more = [f"eta {option(form, 'eta'):g}", norm and f"norm {norm:g}", momentum and f"momentum {momentum:g}"]
    said = [words for words in more if words]
    return f"projected {words} ({', '.join(said)})", "-".join(["apg", short, *said]).replace(" ", "")


def _threshold(form: Part) -> tuple[str, str]:
    quantile = option(form, "quantile")
    if quantile is None:
        return "static threshold", "static"
    return f"dynamic threshold {quantile:g}", f"dynamic{quantile:g}"


# What is said of the forms of guidance that have a common name; any other is said as a part with its options.
SAID: dict[str, Callable[[Part], tuple[str, str]]] = {
    "autoguidance": lambda form: (f"autoguidance {option(form, 'w'):g}", f"auto{option(form, 'w'):g}"),
    "cfg": _cfg,
    "apg": _apg,
    "rescale": lambda form: (f"rescaled {option(form, 'phi'):g}", f"phi{option(form, 'phi'):g}"),
    "threshold": _threshold,
    "classifier": lambda form: (f"classifier {option(form, 'scale'):g}", f"s{option(form, 'scale'):g}"),
}


def shared(makings: Sequence[Making]) -> Making:
    """Return what several ways of making images have in common; what differs is left out."""
    first, *others = makings
    common = tuple(words for words in first.guided if all(words in other.guided for other in others))
    differ = [f for f in fields(first) if any(getattr(other, f.name) != getattr(first, f.name) for other in others)]
    blank: dict[str, Any] = {f.name: f.default for f in differ}
    return replace(first, **(blank | {"guided": common}))


def _short(part: Part) -> str:
    """Return a part and its options for a file name, a number of steps last and without its name."""
    options = {**part.options}
    steps = {"steps": options.pop("steps")} if "steps" in options else {}
    return "-".join(
        [_safe(part.name.rpartition(":")[2]), *(_option(name, value) for name, value in (options | steps).items())]
    )


def _option(name: str, value: Any) -> str:
    """Return an option for a file name: a switch and a number by its name, a choice by itself."""
    if isinstance(value, bool):
        return name if value else f"no-{name}"
    named = "" if name == "steps" or isinstance(value, str) else name
    return _safe(f"{named}{value:g}" if isinstance(value, int | float) else f"{named}{value}")


def _safe(text: str) -> str:
    """Return a text with only such characters as any file system takes."""
    return re.sub(r"[^\w.@=+-]+", "_", text)
