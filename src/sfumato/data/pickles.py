"""Read a pickle as data: a small machine that follows its opcodes and calls nothing.

A pickle is a program. Python's own reader imports every name it mentions and calls what it is told to call, so opening
a stranger's checkpoint runs a stranger's code. This machine interprets the same opcodes, but a name stays a `Name`, a
call stays a `Call` with its arguments, and nothing is looked up, imported, called or executed. Names outside the list
that the caller allows are refused at once, before anything is built of them. What the allowed ones mean (a tensor, an
ordered dictionary) is decided later by `sfumato.interop.tensors`, from these inert values.

A pickle that would exhaust the machine is refused as well: too many opcodes, too deep, a key that is no plain value.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, BinaryIO, NamedTuple

MAX_OPCODES = 1_000_000
"""The most opcodes of one pickle; the largest published U-Nets need fewer than a tenth."""
MAX_MARKS = 200
"""The most open containers at a time."""
KEYS = (str, bytes, int, float, bool, type(None))


class _Refused(Exception):
    """What a pickle does that data has no need of."""


class Name(NamedTuple):
    """Name something importable, which is not imported."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(eq=False, slots=True)
class Call:
    """Stand for an object that a pickle asks to be made.

    Attributes:
        name: Name of what would be called.
        args: Arguments of the call.
        state: State that would be set on the result.
        items: Pairs that would be put into it, or values that would be appended.
    """

    name: Name
    args: tuple[Any, ...]
    state: Any = None
    items: list[Any] = field(default_factory=list)


@dataclass(eq=False, slots=True, frozen=True)
class Reference:
    """Stand for an object that lies outside the pickle, such as a tensor's storage."""

    pid: Any


def read_pickle(stream: BinaryIO, allowed: Callable[[Name], bool], what: str, error: type[ValueError]) -> Any:
    """Read one pickle from where a stream stands and leave the stream behind it.

    Arguments:
        stream: Binary, seekable, in memory.
        allowed: Whether a name may be mentioned.
        what: Name of the file in messages.
        error: The kind of error to raise.

    Returns:
        Numbers, strings, bytes, None, lists, tuples, dicts with plain keys, and `Name`, `Call`, `Reference`. Byte
        strings of Python 2 become strings, one character a byte.

    Raises:
        ValueError: Of that kind, if the pickle is malformed, mentions a name that is not allowed, or exceeds a limit.
    """
    machine = _Machine(allowed)
    try:
        for count, (opcode, argument, _) in enumerate(pickletools.genops(stream)):
            if count >= MAX_OPCODES:
                raise _Refused(f"it has more than {MAX_OPCODES:,} opcodes")
            machine.step(opcode.name, argument)
        return machine.result()
    except _Refused as reason:
        raise error(f"{what} is refused: {reason}. Nothing of it was executed.") from None
    except RecursionError:
        raise error(f"{what} is refused: it is nested too deeply. Nothing of it was executed.") from None
    except Exception as cause:  # a malformed pickle breaks anything: the stack, the decoder of a string, a number
        raise error(f"{what} is not a readable pickle ({type(cause).__name__}: {cause}).") from None


CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
EMPTY: dict[str, Callable[[], Any]] = {
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: Call(Name("builtins", "set"), ()),
}
VALUES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "STRING", "BINSTRING", "SHORT_BINSTRING",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8", "FLOAT",
    "BINFLOAT",
}  # fmt: skip
FIXED = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = {"PROTO", "FRAME", "STOP"}


class _Machine:
    def __init__(self, allowed: Callable[[Name], bool]) -> None:
        self.allowed = allowed
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}

    def result(self) -> Any:
        if len(self.stack) != 1 or self.marks:
            raise _Refused("it does not leave exactly one value")
        return self.stack[0]

    def step(self, opcode: str, argument: Any) -> None:
        """Follow one opcode."""
        if opcode in IGNORED:
            return
        if opcode in CONSTANTS:
            self.stack.append(CONSTANTS[opcode])
        elif opcode in EMPTY:
            self.stack.append(EMPTY[opcode]())
        elif opcode in VALUES:
            self.stack.append(argument)
        elif opcode in FIXED:
            count = FIXED[opcode]
            if len(self.stack) < count:
                raise _Refused("its stack is empty")
            self.stack[-count:] = [tuple(self.stack[-count:])]
        else:
            action = getattr(self, f"do_{opcode}", None)
            if action is None:
                raise _Refused(f"it uses the opcode {opcode}, which data has no need of")
            action(argument)

    def popped(self) -> list[Any]:
        """Return what was put down since the last mark."""
        items, self.stack = self.stack, self.marks.pop()
        return items

    def do_MARK(self, _: Any) -> None:
        if len(self.marks) >= MAX_MARKS:
            raise _Refused(f"it opens more than {MAX_MARKS} containers at a time")
        self.marks.append(self.stack)
        self.stack = []

    def do_POP(self, _: Any) -> None:
        if self.stack:
            self.stack.pop()
        else:
            self.popped()

    def do_POP_MARK(self, _: Any) -> None:
        self.popped()

    def do_DUP(self, _: Any) -> None:
        self.stack.append(self.stack[-1])

    def do_TUPLE(self, _: Any) -> None:
        items = self.popped()
        self.stack.append(tuple(items))

    def do_LIST(self, _: Any) -> None:
        items = self.popped()
        self.stack.append(items)

    def do_DICT(self, _: Any) -> None:
        items = self.popped()
        self.stack.append({})
        self.put(items)

    def do_APPEND(self, _: Any) -> None:
        value = self.stack.pop()
        self.extend([value])

    def do_APPENDS(self, _: Any) -> None:
        self.extend(self.popped())

    def do_ADDITEMS(self, _: Any) -> None:
        self.extend(self.popped())

    def do_SETITEM(self, _: Any) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.put([key, value])

    def do_SETITEMS(self, _: Any) -> None:
        self.put(self.popped())

    def extend(self, items: list[Any]) -> None:
        """Append to the list on top of the stack."""
        top = self.stack[-1]
        if type(top) is list:
            top += items
        elif type(top) is Call:
            top.items += items
        else:
            raise _Refused(f"it appends to a {type(top).__name__}")

    def put(self, items: list[Any]) -> None:
        """Set keys of the dictionary on top of the stack."""
        top = self.stack[-1]
        keys, values = items[::2], items[1::2]
        if len(keys) != len(values) or not all(type(key) in KEYS for key in keys):
            raise _Refused("it holds a dictionary whose keys are not plain values")
        if type(top) is dict:
            top.update(zip(keys, values))
        elif type(top) is Call:
            top.items += zip(keys, values)
        else:
            raise _Refused(f"it sets items of a {type(top).__name__}")

    def remember(self, slot: Any) -> None:
        self.memo[int(slot)] = self.stack[-1]

    do_PUT = do_BINPUT = do_LONG_BINPUT = remember

    def do_MEMOIZE(self, _: Any) -> None:
        self.memo[len(self.memo)] = self.stack[-1]

    def recall(self, slot: Any) -> None:
        self.stack.append(self.memo[int(slot)])

    do_GET = do_BINGET = do_LONG_BINGET = recall

    def mention(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise _Refused("it names something by what is no text")
        found = Name(module, name)
        if not self.allowed(found):
            raise _Refused(f"it refers to {str(found)[:200]}, which is not data")
        self.stack.append(found)

    def do_GLOBAL(self, argument: Any) -> None:
        self.mention(*argument.split(" ", 1))

    def do_STACK_GLOBAL(self, _: Any) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.mention(module, name)

    def do_REDUCE(self, _: Any) -> None:
        args, name = self.stack.pop(), self.stack.pop()
        if type(name) is not Name or type(args) is not tuple:
            raise _Refused("it calls something that is no name")
        self.stack.append(Call(name, args))

    do_NEWOBJ = do_REDUCE

    def do_BUILD(self, _: Any) -> None:
        state = self.stack.pop()
        if type(self.stack[-1]) is not Call:
            raise _Refused(f"it sets the state of a {type(self.stack[-1]).__name__}")
        self.stack[-1].state = state

    def do_BINPERSID(self, _: Any) -> None:
        self.stack.append(Reference(self.stack.pop()))
