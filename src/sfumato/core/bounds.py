"""Bounds: which numbers a field of a recipe or an option of a part takes, declared once, with its type.

    def adam(network, lr: Positive = 2e-4, beta1: Fraction = 0.9): ...

The type is what it was, for people, for mypy and for `core.find.conform`; who checks a recipe (`runs.check_numbers`)
reads the bounds of every number from where it is declared. A number without bounds must be finite.
"""

from __future__ import annotations

import math
import typing
from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Bounds:
    """A range of numbers.

    Attributes:
        least: The smallest number inside; minus infinity for no limit.
        most: The largest number inside; infinity for no limit.
        open: Which ends are left out: "", "[)", "(]" or "()".
        endless: Whether infinity is inside, where it means "no limit".
    """

    least: float = -math.inf
    most: float = math.inf
    open: str = ""
    endless: bool = False

    def __contains__(self, value: float) -> bool:
        low = self.least < value if self.open[:1] == "(" else self.least <= value
        high = value < self.most if self.open[1:] == ")" else value <= self.most
        return low and high and (self.endless or math.isfinite(value))

    def broken_by(self, value: float) -> str:
        """Say which rule a value breaks: of a long range of whole numbers, that of the end it has passed."""
        if isinstance(self.most, int) and self.most > 1000:
            return f"at least {_short(self.least)}" if value < self.least else f"at most {_short(self.most)}"
        return str(self)

    def __str__(self) -> str:
        """Say what a number must be.

        >>> print(Bounds(1), Bounds(0, open="(]"), Bounds(0, 1, "[)"), Bounds(), Bounds(0, endless=True), sep="; ")
        at least 1; positive and finite; in [0, 1); finite; at least 0
        """
        if self.most < math.inf:
            first, last = list(self.open or "[]")
            return f"in {first}{_short(self.least)}, {_short(self.most)}{last}"
        if self.least == -math.inf:
            return "finite"
        above = self.open[:1] == "("
        low = "positive" if above and not self.least else f"{'above' if above else 'at least'} {self.least:,g}"
        return f"{low} and finite" if above and not self.endless else low


def _short(end: float) -> str:
    return f"{end:,}" if isinstance(end, int) else f"{end:g}"


LARGE = 2**53
Size = Annotated[int, Bounds(1, 65_536)]  # of a network or an image
SizeOr0 = Annotated[int, Bounds(0, 65_536)]  # 0 where another option says it
ByLevel = Size | tuple[Size, ...]  # one for all levels of a network, or one for each, finest first
ByLevelOr0 = SizeOr0 | tuple[SizeOr0, ...]
Batch = Annotated[int, Bounds(1, 2**24)]
Steps = Annotated[int, Bounds(1, 100_000)]
Count = Annotated[int, Bounds(1, LARGE)]
Whole = Annotated[int, Bounds(0, LARGE)]
Depth = Annotated[int, Bounds(0, 1000)]
Seed = Annotated[int, Bounds(0, 2**64 - 1)]
Positive = Annotated[float, Bounds(0, open="(]")]
NotNegative = Annotated[float, Bounds(0)]
NoLimit = Annotated[float, Bounds(0, endless=True)]  # infinity is none
Share = Annotated[float, Bounds(0, 1)]
Fraction = Annotated[float, Bounds(0, 1, "[)")]  # a share below 1
Inside = Annotated[float, Bounds(0, 1, "()")]
UpToOne = Annotated[float, Bounds(0, 1, "(]")]
Few = Annotated[float, Bounds(0, 1000)]
Rate = Annotated[float, Bounds(0)]  # of learning: 0 trains nothing, one that is too high ends as a run that diverged
Nsr = Annotated[float, Bounds(1e-9, 1e9)]
Log = Annotated[float, Bounds(-100, 100)]  # an exponent
Warp = Annotated[float, Bounds(0.1, 1000)]  # the root that is taken, as in EDM's rho
ANY = Bounds()


def bounds_of(hint: Any) -> Bounds:
    """Return the bounds that a type declares, at any depth; those of any finite number if it declares none.

    >>> bounds_of(Positive | None), bounds_of(tuple[Size, ...]).least, bounds_of(float) == ANY
    (Bounds(least=0, most=inf, open='(]', endless=False), 1, True)
    """
    own = next((more for more in getattr(hint, "__metadata__", ()) if isinstance(more, Bounds)), None)
    if own is not None:
        return own
    return next((found for arm in typing.get_args(hint) if (found := bounds_of(arm)) is not ANY), ANY)


def check_times(t_min: float, t_max: float) -> None:
    """Refuse an interval of times that is not one inside [0, 1]."""
    if not 0 <= t_min < t_max <= 1:
        raise ValueError(f"Times must satisfy 0 <= t_min < t_max <= 1; got {t_min} and {t_max}.")


def check_sigmas(sigma_min: float, sigma_max: float) -> None:
    """Refuse a range of noise that is none."""
    if not 0 < sigma_min < sigma_max:
        raise ValueError(f"Noise ranges need 0 < sigma_min < sigma_max; got {sigma_min} and {sigma_max}.")
