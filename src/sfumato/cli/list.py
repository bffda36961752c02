"""``sfumato list``: what the rooms hold."""

from __future__ import annotations

import importlib
import inspect
import shutil
import textwrap
from typing import Annotated, Any

from tyro.conf import Positional, arg

# The name a person uses, and the module below `sfumato` that holds the entries.
ROOMS = {
    "recipes": "recipes",
    "data": "data",
    "schedules": "schedules",
    "targets": "core.target",
    "networks": "networks",
    "conditioning": "conditioning",
    "draws": "draws",
    "weightings": "weightings",
    "objectives": "objectives",
    "optimizers": "training.optim",
    "rates": "training.rates",
    "trackers": "training.trackers",
    "samplers": "samplers",
    "grids": "grids",
    "guidance": "guidance",
    "extractors": "metrics.extractors",
    "pictures": "pictures",
    "studies": "studies",
}
# Parameters that a recipe or a sampler's caller fills in; the rest are a person's options.
FILLED_IN = (
    *("table", "schedule", "sigma_data", "channels", "out_channels", "classes", "size"),
    *("noise", "label", "split", "root", "seed", "batch", "scale"),
)
# rooms whose entries a command or the loop calls itself
OWN_FILLED_IN = {"pictures": ("run", "device", "root"), "trackers": ("folder", "recipe")}


def list(room: Annotated[Positional[str | None], arg(metavar="[ROOM]")] = None) -> int:
    """List the rooms of the house, or what one of them holds.

    A room is an axis of the design space; an entry is one choice on it. Options show their default values.

    Arguments:
        room: recipes, data, schedules, targets, networks, conditioning, draws, weightings, objectives, optimizers,
            rates, trackers, samplers, grids, guidance, extractors, pictures or studies; every room unless given.
    """
    if room is None:
        for name, module in ROOMS.items():
            _print_room(name, module)
        print("sfumato list ROOM shows each entry with its options; sfumato explain RECIPE a recipe.")
    else:
        _print_entries(room)
    return 0


def module_of(room: str) -> str:
    """Return the module of a room by the name a person uses, or by its own.

    Raises:
        UnknownNameError: With the nearest name.
    """
    from sfumato.core.find import UnknownNameError, nearest

    if room in ROOMS.values():
        return room
    if room not in ROOMS:
        raise UnknownNameError(nearest("room", room, ROOMS))
    return ROOMS[room]


def _print_room(name: str, module: str) -> None:
    from sfumato.core.find import entries

    theme = (inspect.getdoc(importlib.import_module(f"sfumato.{module}")) or "").splitlines()[:1]
    print(f"{name}: {''.join(theme)}")
    print(_wrapped(", ".join(entries(module)), "  ") + "\n")


def _print_entries(room: str) -> None:
    from sfumato.core.find import entries, options_of, summary

    for name, entry in entries(module_of(room)).items():
        print(name)
        print(_wrapped(summary(entry), "    "))
        if options := options_of(entry, fixed=OWN_FILLED_IN.get(room, FILLED_IN)):
            shown = ", ".join(f"{p.name}={_default(p.default)}" for p in options.values())
            print(_wrapped(f"options: {shown}", "    ", hang="      "))


def _default(value: Any) -> str:
    if callable(value):
        return str(getattr(value, "__name__", "..."))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _wrapped(text: str, indent: str, hang: str | None = None) -> str:
    width = min(110, shutil.get_terminal_size().columns)
    return textwrap.fill(text, width, initial_indent=indent, subsequent_indent=hang or indent, break_on_hyphens=False)
