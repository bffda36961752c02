"""From words to an exit code: find the command, parse, run, and say in one message what was wrong."""

from __future__ import annotations

import atexit
import contextlib
import errno
import importlib
import inspect
import io
import os
import pkgutil
import shlex
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import copy_context
from pathlib import Path
from types import TracebackType
from typing import TextIO

from sfumato.cli._wrapped import wrapped
from sfumato.report.resolution import draw_at

DESCRIPTION = (
    "The design space of diffusion models: train, sample and honestly evaluate. Begin with `sfumato demo`. "
    "Then, mostly in this order: list, explain, train, sample, evaluate, report. The command app does the same by hand "
    "in the browser. `sfumato COMMAND --help` explains a command. Every command takes three more options: `--debug` "
    "shows the stack trace of an error, `--with MODULE` lets runs and pictures name parts of your own module, and "
    "`--scale 2` draws pictures at twice the resolution."
)
BAD_INPUT, INTERRUPTED = 2, 130
CODES = {"IncomparableError": 3, "Diverged": 4, "RankLost": 5}  # by name: importing these classes would import torch
REMEDIES = {
    FileNotFoundError: "Check the path.",
    FileExistsError: "A folder is needed there; name another path.",
    NotADirectoryError: "A folder is needed there; name another path.",
    IsADirectoryError: "A file is needed there; name one.",
    PermissionError: "Name a place that you may read and write.",
}
NO_PLACE = {
    errno.EROFS: "Name a place that can be written.",
    errno.ENOSPC: "Make space there, or name another place.",
    errno.EDQUOT: "Make space there, or name another place.",
}
LAYOUT = "\n\t"  # of a message; other control characters come from what it quotes
SHARED = ("train", "sample", "evaluate")  # what several processes do together
Command = Callable[..., int | None]


def commands() -> dict[str, Command]:
    """Return every command by name: function ``train`` of train.py, and so on; ``import_``, as Python has the word."""
    names = [info.name for info in pkgutil.iter_modules([str(Path(__file__).parent)]) if not info.name.startswith("_")]
    found = {name: getattr(importlib.import_module(f"{__package__}.{name}"), name) for name in sorted(names)}
    return {name.removesuffix("_"): command for name, command in found.items()}


def program() -> None:
    """Run the command of this process and end it.

    What other packages do at the end is done. Then the process ends: to take the objects of torch apart one by one
    would take most of a second.
    """
    code = None

    @atexit.register  # registered first, so called last
    def leave() -> None:
        if code is None:
            return
        try:
            for stream in (sys.stdout, sys.stderr):
                stream.flush()
        except OSError:  # Python says it
            return
        os._exit(code)

    code = main()
    sys.exit(code)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Arguments:
        argv: Words after the program's name; None for the process's own.

    Returns:
        The exit code (see the package's list).
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    words = _allowed(word for word in words if word != "--debug")
    if isinstance(sys.stdout, io.TextIOWrapper):  # a name that is no text, or a terminal without a letter
        sys.stdout.reconfigure(errors="backslashreplace")
    silent = io.StringIO() if _rank() else sys.stdout  # of several processes the first one speaks
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(silent):
            warnings.showwarning = _show_warning
            done = copy_context().run(_run, words)  # what a command sets for its pictures ends with it
            _leave()
            return done
    except SystemExit as stop:
        return stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except KeyboardInterrupt:
        print("\nInterrupted.", file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:  # the reader has left, as in `sfumato list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        error = _in_memory(error)
        code = _exit_code(error)
        if debug or code is None:
            traceback.print_exc()
        if code is not None:
            who = f"process {_rank()}: " if _rank() else ""
            print(f"error: {who}{_printable(_message(error))}", file=sys.stderr)
        return 1 if code is None else code


def _allowed(words: Iterable[str]) -> list[str]:
    """Take ``--with MODULE`` out of the words of any command and allow files to name parts of it (`core.outside`)."""
    kept, named = _taken(words, "--with")
    if named:
        os.environ["SFUMATO_WITH"] = ",".join(filter(None, [os.environ.get("SFUMATO_WITH"), *named]))
    return kept


def _scaled(words: Iterable[str]) -> list[str]:
    """Take ``--scale N`` out of the words of a command and draw its pictures at that resolution."""
    kept, scales = _taken(words, "--scale")
    if len(scales) > 1:
        from sfumato.cli._arguments import refusal

        raise refusal("--scale is given twice, and the second would replace the first. Give one.")
    for scale in scales:
        draw_at(int(scale) if scale.isdecimal() else 0)
    return kept


def _taken(words: Iterable[str], option: str) -> tuple[list[str], list[str]]:
    """Return the words without an option that every command takes, and the values it was given."""
    rest, kept, values = list(words), [], []
    while rest:
        name, equals, value = (word := rest.pop(0)).partition("=")
        if name != option:
            kept.append(word)
        else:
            values.append(value if equals or not rest else rest.pop(0))
    return kept, values


def _rank() -> int:
    """Return which of several processes this is, as `torchrun` says; 0 if there is one."""
    rank = os.environ.get("RANK", "0")
    return int(rank) if rank.isdecimal() else 0


def _check_processes(command: str) -> None:
    """Refuse to do the same work several times over."""
    world = os.environ.get("WORLD_SIZE", "1")
    if world != "1" and command not in SHARED:
        from sfumato.core.find import OptionError

        raise OptionError(
            f"{world} processes were started (WORLD_SIZE), and `sfumato {command}` runs in one. Start it without "
            f"torchrun; {', '.join(SHARED)} share their work."
        )


def _leave() -> None:
    """Tell the other processes of a run, if any, that this one has done its part."""
    joined = sys.modules.get("sfumato.processes.ranks")
    if joined is not None:
        joined.leave()


def _run(words: list[str]) -> int:
    import tyro

    from sfumato.cli._arguments import COMMAND, arrange

    COMMAND.set(shlex.join(["sfumato", *words]))
    known = commands()
    if not (
        words and words[0] in known and "scale" in inspect.signature(known[words[0]]).parameters
    ):  # its own --scale
        words = _scaled(words)
    config = (tyro.conf.FlagCreatePairsOff,)
    if words[:1] == ["--version"]:
        from sfumato import __version__

        print(f"sfumato {__version__}")
        return 0
    if words and words[0] in known:
        _check_processes(words[0])
        command = known[words[0]]
        args, asked = arrange(command, words[1:]), not {"-h", "--help"}.isdisjoint(words)
        with _fitting() if asked else contextlib.nullcontext():
            result = tyro.cli(command, prog=f"sfumato {words[0]}", args=args, config=config)
        return result or 0
    if words and not words[0].startswith("-"):
        from sfumato.core.find import UnknownNameError, nearest

        raise UnknownNameError(nearest("command", words[0], known))
    brief = {name: _brief(command) for name, command in known.items()}
    with _fitting():
        tyro.extras.subcommand_cli_from_dict(
            brief, prog="sfumato", description=DESCRIPTION, args=words or ["--help"], config=config
        )
    return 0


BOXES = " │╭╰+|\x1b"  # what lines begin with that are made for the width of the terminal, or are an example


class _Held(io.StringIO):
    """What is printed, held back; it answers for the terminal behind it, by which tyro chooses boxes and colours."""

    def __init__(self, behind: TextIO) -> None:
        super().__init__()
        self._behind = behind

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._behind.encoding or ""

    def isatty(self) -> bool:
        return self._behind.isatty()


@contextlib.contextmanager
def _fitting() -> Iterator[None]:
    """Break the lines that a help prints above its boxes between words; tyro leaves them to the terminal."""
    printed = _Held(sys.stdout)
    try:
        with contextlib.redirect_stdout(printed):
            yield
    finally:
        lines = (line if line[:1] in BOXES else wrapped(line) for line in printed.getvalue().splitlines())
        print("\n".join(lines))


def _brief(command: Command) -> Command:
    """Return a stand-in with the first docstring line only, for the list of commands."""

    def stand_in() -> None: ...

    stand_in.__doc__ = (command.__doc__ or "").splitlines()[0]
    return stand_in


def _in_memory(error: Exception) -> Exception:
    """Return an error of the allocator as one of memory, which the input asked for."""
    torchs = isinstance(error, RuntimeError) and "allocate" in str(error).lower()
    if not isinstance(error, MemoryError) and not torchs:
        return error
    said = str(error).strip().splitlines() or ["memory ran out"]
    return OSError(f"There is not enough memory: {said[0].rstrip('.')}. Use a smaller network, size or batch.")


def _exit_code(error: Exception) -> int | None:
    """Return the exit code of an error that is the input's fault, or None for one that is ours."""
    if isinstance(error, OSError) or (isinstance(error, ValueError) and _raised_by_us(error.__traceback__)):
        return CODES.get(type(error).__name__, BAD_INPUT)
    return CODES.get(type(error).__name__)


def _raised_by_us(trace: TracebackType | None) -> bool:
    name = ""
    while trace is not None:
        name = trace.tb_frame.f_globals.get("__name__", "")
        trace = trace.tb_next
    return name.partition(".")[0] == "sfumato"


def _message(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        remedy = next((words for kind, words in REMEDIES.items() if isinstance(error, kind)), "")
        remedy = NO_PLACE.get(error.errno or 0, remedy)
        said = f"{error.strerror}{f': {error.filename}' if error.filename else ''}. {remedy}".strip()
        return "\n".join([said, *getattr(error, "__notes__", ())])
    return str(error)


def _printable(message: str) -> str:
    from sfumato.core.errors import printable  # its package imports torch, and most commands end without a message

    return printable(message, LAYOUT)


def _show_warning(message: Warning | str, *_: object, **__: object) -> None:
    print(f"warning: {_printable(str(message))}", file=sys.stderr)
