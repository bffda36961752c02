"""Where a search looks: fields of a recipe, each with a range or a list of values.

train.optimizer.lr=1e-4..1e-1      a range; logarithmic where it spans a factor of ten or more above 0
objective.label_dropout=log:0.05..0.2    logarithmic whatever it spans
network.blocks=1..3                whole numbers, as the field takes no others
train.rate=constant,cosine         names or values
train.images=5000                  one value: the same for every trial
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sfumato.core.find import OptionError
from sfumato.runs.override import override
from sfumato.runs.recipe import Recipe, RecipeError

DECADE = 10  # high / low from which a range is logarithmic
# What scores are comparable by, what a trial costs, and luck.
KEPT = (
    *("data", "evaluate", "shape", "sigma_data", "ema.use", "train.images", "train.minutes", "train.epochs"),
    *("train.seed", "train.start", "train.evaluate_every", "train.track"),
)


@dataclass(frozen=True)
class Dimension:
    """A field that is searched.

    Attributes:
        field: Its dotted path.
        low, high: Ends of a range, inside; both 0 where there are values instead.
        whole: Whether the range is of whole numbers.
        log: Whether equal ratios are equally likely.
        values: Values to choose among; () for a range.
    """

    field: str
    low: float = 0.0
    high: float = 0.0
    whole: bool = False
    log: bool = False
    values: tuple[str, ...] = ()

    def __str__(self) -> str:
        if self.values:
            return f"{self.field}={','.join(self.values)}"
        return f"{self.field}={'log:' if self.log else ''}{self.low:g}..{self.high:g}"

    def assigned(self, value: Any) -> str:
        """Return the assignment of one of its values: of a range in four digits, or as many as tell a hundred apart."""
        if not isinstance(value, float):
            return f"{self.field}={value}"
        largest = 1.0 if self.log else max(abs(self.low), abs(self.high))
        width = 1.0 if self.log else self.high - self.low
        digits = 4 + max(0, math.ceil(math.log10(largest / width / 20)))
        return f"{self.field}={value:.{digits}g}"

    @property
    def ends(self) -> list[Any]:
        """The values that are tried on the recipe before any training."""
        return list(self.values) or [int(end) if self.whole else end for end in (self.low, self.high)]


def space_of(recipe: Recipe, words: Sequence[str]) -> tuple[Recipe, list[Dimension]]:
    """Read a space; return the recipe that all trials share, and what differs between them.

    Arguments:
        recipe: What the search begins from.
        words: As in this module's description.

    Raises:
        OptionError: For a word that is neither a range, a list nor a value, or a range without width.
        RecipeError: For a field that does not exist, that nothing reads, that takes no such value, or that a search
            must not change.
    """
    single = [word for word in words if ".." not in word and len(_listed(word.partition("=")[2])) < 2]
    shared = override(recipe, single)
    found: list[Dimension] = []
    for word in (word for word in words if word not in single):
        field, _, text = word.partition("=")
        field = field.strip().replace("-", "_")
        if kept := next((name for name in KEPT if field == name or field.startswith(f"{name}.")), None):
            raise RecipeError(
                f"A search compares trials on equal data, cost and luck, so {kept} is the same for all; got {word}. "
                f"Give it one value, {field}=VALUE."
            )
        if field in [known.field for known in found]:
            raise OptionError(f"A search takes each field once; got {field} twice.")
        found.append(_dimension(shared, field, text.strip(), word))
        for end in found[-1].ends:  # refuses what no recipe can be
            override(shared, [found[-1].assigned(end)])
    if not found:
        raise OptionError(
            "A search needs a field with a range or values, for example train.optimizer.lr=1e-4..1e-1 or "
            f"sample.sampler=heun,ddim; got {' '.join(words) or 'none'}."
        )
    return shared, found


def _listed(text: str) -> tuple[str, ...]:
    """Return the different values of a list.

    >>> _listed("a, b,a"), _listed("[1,1],[1,2]"), _listed("[1,1]")
    (('a', 'b'), ('[1,1]', '[1,2]'), ('[1,1]',))
    """
    found = (value.strip() for value in re.findall(r"\[[^\]]*\]|[^,]+", text))
    return tuple(dict.fromkeys(value for value in found if value))


def _dimension(recipe: Recipe, field: str, text: str, word: str) -> Dimension:
    if ".." not in text:
        return Dimension(field, values=_listed(text))
    log = text.startswith("log:")
    ends = text.removeprefix("log:").split("..")
    try:
        low, high = map(float, ends)
    except ValueError:
        raise OptionError(f"A range reads LOW..HIGH with two numbers, for example 1e-4..1e-1; got {word}.") from None
    if not (math.isfinite(low) and math.isfinite(high) and low < high):
        raise OptionError(f"A range goes from a lower to a higher finite number; got {word}.")
    if log and low <= 0:
        raise OptionError(f"A logarithmic range begins above 0; got {word}.")
    override(recipe, [f"{field}={ends[0].strip()}"])
    whole = low.is_integer() and high.is_integer() and not _takes(recipe, f"{field}={low + 0.5}")
    return Dimension(field, low, high, whole, log or (low > 0 and high / low >= DECADE))


def _takes(recipe: Recipe, assignment: str) -> bool:
    """Return whether a field takes a value."""
    try:
        override(recipe, [assignment])
    except (RecipeError, OptionError):
        return False
    return True
