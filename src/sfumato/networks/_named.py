"""Weights by name: which ones stay as they are in training (`train.freeze`), and how fast others move.

A pattern is a path in the network, such as `down.0`, and means every weight below it; `*`, `?` and `[...]` stand for
any characters, dots among them: `down.*`, `*.norm*`. A frozen weight has no gradient, so no optimiser holds anything of
it. A factor multiplies the learning rate of what its pattern means, `label:10`; of several that mean the same weight
the first counts, and the rest of the network has 1.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase

from torch import nn

from sfumato.core.errors import printable


def weights_named(network: nn.Module, pattern: str, field: str) -> list[str]:
    """Return the names of the weights that a pattern means, in the network's order.

    Arguments:
        network: Whose weights are meant.
        pattern: A path in it, with wildcards.
        field: Name of the recipe's field that holds the pattern, for the message.

    Raises:
        ValueError: If it means none; the nearest path is offered.
    """
    names = [name for name, _ in network.named_parameters()]
    found = [name for name in names if any(fnmatchcase(path, pattern) for path in _paths(name))]
    if found:
        return found
    known = dict.fromkeys(path for name in names for path in _paths(name))
    close = difflib.get_close_matches(pattern.rstrip(".*"), known, n=1, cutoff=0.4)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    tops = ", ".join(dict.fromkeys(name.split(".")[0] for name in names))
    raise ValueError(
        f"{field} names weights of the network by their path, and '{printable(pattern)}' means none.{hint} The "
        f"network's parts are {tops}."
    )


def _paths(name: str) -> Iterator[str]:
    """Yield a weight's name and the path of every module around it.

    >>> list(_paths("down.0.weight"))
    ['down.0.weight', 'down.0', 'down']
    """
    while name:
        yield name
        name = name.rpartition(".")[0]


def frozen_weights(network: nn.Module, freeze: Sequence[str]) -> set[str]:
    """Return the names of the weights that stay as they are.

    Arguments:
        network: Whose weights are meant.
        freeze: Paths in the network, with wildcards.

    Raises:
        ValueError: If a pattern means none, or all of them together leave nothing to train.
    """
    frozen = {name for pattern in freeze for name in weights_named(network, pattern, "train.freeze")}
    if frozen and len(frozen) == sum(1 for _ in network.parameters()):
        raise ValueError(
            f"train.freeze={','.join(freeze)} leaves no weight of the network to train. Leave out a pattern."
        )
    return frozen


def factors_of_rates(network: nn.Module, rate_factors: Sequence[str]) -> dict[str, float]:
    """Return the factor of the learning rate of every weight that has one, by name.

    Arguments:
        network: Whose weights are meant.
        rate_factors: Patterns with their factors, PATTERN:FACTOR.

    Raises:
        ValueError: If a text does not read so, its factor is not finite or below 0, or it means no weight.
    """
    factors: dict[str, float] = {}
    for text in rate_factors:
        pattern, _, number = text.rpartition(":")
        try:
            factor = float(number)
        except ValueError:
            factor = math.nan
        if not pattern or not 0 <= factor < math.inf:
            raise ValueError(
                f"train.rate_factors reads PATTERN:FACTOR with a factor of at least 0, for example label:10; got "
                f"'{printable(text)}'."
            )
        for name in weights_named(network, pattern, "train.rate_factors"):
            factors.setdefault(name, factor)
    return factors
