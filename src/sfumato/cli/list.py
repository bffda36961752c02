"""``sfumato list``: the axes of the design space and their parts."""

from __future__ import annotations

from typing import Annotated, Any

from tyro.conf import Positional, arg

from sfumato.cli._wrapped import wrapped


def list(axis: Annotated[Positional[str | None], arg(metavar="[AXIS]", help_behavior_hint="")] = None) -> int:
    """List the axes of the design space, or the parts of one of them.

    A part is one choice on an axis. Options show their default values.

    Arguments:
        axis: recipe, data, labels, schedule, target, network, conditioning, draw, weighting, objective, optimizer,
            rate, tracker, sampler, grid, guidance, task, method, extractor, metric, table, picture, study, family or
            export; every axis unless given.
    """
    if axis is not None:
        _print_parts(axis)
        return 0
    from sfumato.core.axes import AXES
    from sfumato.core.find import entries

    for name, kind in AXES.items():
        print(wrapped(f"{name}: {kind.about}", hang="  "))
        print(wrapped(", ".join(entries(name)), "  ") + "\n")
    print("sfumato list AXIS shows each part with its options and how to add one; sfumato explain RECIPE a recipe.")
    return 0


def _print_parts(word: str) -> None:
    from sfumato.core.axes import AXES, axis_named
    from sfumato.core.find import entries, options_of, summary

    axis = axis_named(word)
    kind = AXES[axis]
    for name, entry in entries(axis).items():
        print(name)
        print(wrapped(summary(entry), "    "))
        if options := options_of(entry, fixed=kind.fixed):
            shown = ", ".join(f"{p.name}={_default(p.default)}" for p in options.values())
            print(wrapped(f"options: {shown}", "    ", hang="      "))
    asks = f" It may ask for {', '.join(kind.offered)} by those names." if kind.offered else ""
    how = f"Add one: a function with a docstring, called as {kind.call}, that returns {kind.returns}.{asks} "
    print(wrapped(f"{how}Put it into {kind.where}, or anywhere and name it my_module:function.", ""))


def _default(value: Any) -> str:
    if callable(value):
        return str(getattr(value, "__name__", "..."))
    return f"{value:g}" if isinstance(value, float) else str(value)
