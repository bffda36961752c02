"""Numbers that say something about each image: a table beside the images, or measured on the images themselves.

``attributes.csv`` stands at the top of a folder or an archive. Its first line names the columns, the first column the
files, with "/" between folders, and every image has one line:

    file,smiling,angle
    a/0001.png,1,0.3
    a/0002.png,,-1.5

An empty cell is a number that is not known (NaN in memory). Measured attributes need no table; with u(x, y) the ink of
a pixel, its code over 255, x to the right and y down, and means taken with u as a weight,

    ink      mean of u over the image
    slant    -Cov(x, y) / Var(y): how far the strokes lean to the right for each pixel that they rise
    width    2 sd(x) over the image's width
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import wraps

import torch
from torch import Tensor

from sfumato.core.errors import UnknownNameError, nearest, printable
from sfumato.data.dataset import DataError, Dataset

SHOWN = 3  # files that an error names
AT_ONCE = 1024  # images that are measured together, in float64
LOST = 1e-3  # of a standard deviation: how much of a number may be lost where it is kept in 32 bits
LARGEST = float(torch.finfo(torch.float32).max)
Rows = Sequence[tuple[str, float, float, float, float]]
"""Of each attribute its name, mean, standard deviation, least and greatest value, as training saw them."""
Columns = tuple[tuple[str, ...], dict[str, list[float]]]
"""The names of the attributes, and the numbers of every file."""


def _in_parts(measure: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """Measure few images at a time: in float64 all of a data set would take many times its memory."""

    @wraps(measure)
    def measured(images: Tensor) -> Tensor:
        return torch.cat([measure(part) for part in images.split(AT_ONCE)])

    return measured


@_in_parts
def ink(images: Tensor) -> Tensor:
    """Return how much of each image is ink, in [0, 1], float64 (N,)."""
    return _ink(images).mean((1, 2))


@_in_parts
def slant(images: Tensor) -> Tensor:
    """Return how far the strokes of each image lean to the right, float64 (N,); NaN without ink or height."""
    _, yy, xy = _moments(images)
    return -xy / torch.where(yy > 0, yy, math.nan)


@_in_parts
def width(images: Tensor) -> Tensor:
    """Return how wide the ink of each image spreads, two standard deviations over its width, float64 (N,)."""
    return 2 * _moments(images)[0].sqrt() / images.shape[-1]


MEASURES: dict[str, Callable[[Tensor], Tensor]] = {"ink": ink, "slant": slant, "width": width}
SIDED = frozenset({"slant"})  # a mirrored image has another value


def _ink(images: Tensor) -> Tensor:
    return images.double().mean(1) / 255


def _moments(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return Var(x), Var(y) and Cov(x, y) of the ink in square pixels, each (N,); NaN without ink."""
    u = _ink(images)
    share = u / u.sum((1, 2), keepdim=True)
    y, x = torch.meshgrid(*(torch.arange(side, dtype=u.dtype) for side in u.shape[1:]), indexing="ij")
    x, y = (axis - (share * axis).sum((1, 2), keepdim=True) for axis in (x, y))
    return (share * x * x).sum((1, 2)), (share * y * y).sum((1, 2)), (share * x * y).sum((1, 2))


def read_table(text: str, where: str) -> Columns:
    """Read the text of an ``attributes.csv``.

    Arguments:
        text: Content of the file.
        where: Its name, for messages.

    Raises:
        DataError: If it is no such table; the message names the line.
    """
    reader = csv.reader(text.splitlines())
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"Line {reader.line_num} of {where} is no line of a table ({error}).") from None
    names = tuple(name.strip() for name in rows[0][1][1:]) if rows else ()
    if not names or len(set(names)) != len(names) or not all(names):
        raise DataError(f"{where} begins with a line of column names, the file's first: file,smiling,angle.")
    found: dict[str, list[float]] = {}
    for line, row in rows[1:]:
        if len(row) != len(names) + 1 or row[0] in found:
            fault = "repeats a file" if row[0] in found else f"has {len(row)} cells, and line 1 has {len(names) + 1}"
            raise DataError(f"Line {line} of {where} ({printable(row[0])}) {fault}.")
        found[row[0]] = [_number(cell, f"Line {line} of {where}, column {name}") for name, cell in zip(names, row[1:])]
    return names, found


def written_table(table: Columns) -> str:
    """Write the text of an ``attributes.csv``, which `read_table` reads as the same numbers.

    >>> print(written_table((("smiling", "angle"), {"a/1.png": [1.0, math.nan]})), end="")
    file,smiling,angle
    a/1.png,1.0,
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("file", *table[0]))
    for file, numbers in table[1].items():
        writer.writerow((file, *("" if math.isnan(number) else number for number in numbers)))
    return text.getvalue()


def _number(cell: str, where: str) -> float:
    value = _read(cell) if cell.strip() else 0.0
    if not abs(value) <= LARGEST:
        raise DataError(
            f"{where} must hold a finite number, or nothing where it is not known; got {printable(cell)!r}."
        )
    return value if cell.strip() else math.nan


def _read(text: str) -> float:
    """Return the number that a text is, NaN for none; Python would read 1_000, and digits of other scripts."""
    try:
        return float(text) if "_" not in text and text.isascii() else math.nan
    except ValueError:
        return math.nan


def rows_of(table: Columns, files: Sequence[str], known: Iterable[str], where: str) -> Tensor:
    """Return the numbers of some files, float64 (N, d).

    Arguments:
        table: Every file's numbers.
        files: Names of the images, in order.
        known: Names of all images of the source: a row of any other is refused.
        where: Name of the table, for messages.

    Raises:
        DataError: If an image has no row, or a row no image.
    """
    missing, extra = [f for f in files if f not in table[1]], sorted(set(table[1]) - set(known))
    for lacking, what in ((missing, "no row for"), (extra, "a row for what is no image of the source:")):
        if lacking:
            named = ", ".join(printable(f) for f in lacking[:SHOWN])
            count = f"{len(lacking):,} in all"
            raise DataError(f"{where} has {what} {named} ({count}). Give every image one row, and nothing else.")
    return torch.tensor([table[1][f] for f in files], dtype=torch.float64).reshape(len(files), len(table[0]))


def with_attributes(data: Dataset, wanted: Sequence[str]) -> Dataset:
    """Return a dataset with the attributes that are wanted, in that order: its own, or measured on its images.

    Raises:
        UnknownNameError: For any other; the nearest is offered.
        DataError: If numbers of one differ by less than 32 bits tell apart.
    """
    if not wanted:
        return replace(data, attributes=(), vector=None)
    own = {name: data.vector[:, i] for i, name in enumerate(data.attributes)} if data.vector is not None else {}
    for name in wanted:
        if name not in own and name not in MEASURES:
            raise UnknownNameError(nearest(f"attribute of {data.name}", name, {*own, *MEASURES}))
    columns = [_single(own[name] if name in own else MEASURES[name](data.images), name) for name in wanted]
    return replace(data, attributes=tuple(wanted), vector=torch.stack(columns, 1))


def _single(column: Tensor, name: str) -> Tensor:
    """Return an attribute in single precision, which must tell its numbers apart."""
    exact = column[~column.isnan()].double()
    if bool((exact.abs() > LARGEST).any()):
        raise DataError(f"Attribute {name} holds a number beyond {LARGEST:.3g}, the largest that 32 bits hold.")
    lost = (exact.float() - exact).abs()
    if len(exact) and exact.min() != exact.max() and lost.max() > LOST * exact.std(correction=0):
        raise DataError(
            f"Attribute {name} holds numbers about {float(exact.mean()):.6g} that 32 bits do not tell apart. "
            "Subtract what all of them share."
        )
    return column.float()


def summary(data: Dataset) -> tuple[tuple[str, float, float, float, float], ...]:
    """Return name, mean, standard deviation, least and greatest value of each attribute, six digits each.

    Raises:
        DataError: If an attribute is the same for every image, or known of none.
    """
    rows = []
    for i, name in enumerate(data.attributes):
        assert data.vector is not None
        values = data.vector[:, i].double()
        values = values[~values.isnan()]
        if len(values) < 2 or float(values.min()) == float(values.max()):
            told = f"is {float(values[0]):g} for all of them" if len(values) else "is known of none"
            raise DataError(f"Attribute {name} of the {len(data):,} {data.split} images {told}: leave it out.")
        numbers = (values.mean(), values.std(correction=0), values.min(), values.max())
        mean, deviation, least, greatest = (float(f"{float(v):.6g}") for v in numbers)
        rows.append((name, mean, deviation, least, greatest))
    return tuple(rows)


def standard(vector: Tensor, rows: Rows) -> Tensor:
    """Return raw numbers (B, d) less their means, over their standard deviations; NaN stays."""
    mean, deviation = (torch.tensor([row[k] for row in rows], dtype=vector.dtype, device=vector.device) for k in (1, 2))
    return (vector - mean) / deviation


def parse(text: str) -> dict[str, str]:
    """Read attributes and their values from a text.

    Raises:
        ValueError: If it does not read so, or names an attribute twice.

    >>> parse("smiling=1, male=0")
    {'smiling': '1', 'male': '0'}
    """
    pairs = [word.partition("=") for word in text.split(",")]
    found = {name.strip(): value.strip() for name, _, value in pairs}
    if len(found) < len(pairs) or not all(name.strip() and value.strip() for name, _, value in pairs):
        raise ValueError(f"Attributes read NAME=VALUE, each once, with commas between: smiling=1,male=0; got {text!r}.")
    return found


def asked(where: Mapping[str, float | str], rows: Rows) -> Tensor:
    """Return the numbers that a person asks for by name, standardised, float32 (d,); NaN for those not named.

    Arguments:
        where: Values by name; "2sd" stands for two standard deviations above the mean of training.
        rows: What `summary` said of the training images.

    Raises:
        UnknownNameError: For an attribute that the model is not told; the nearest is offered.
        ValueError: For a value that is no finite number.

    >>> asked({"ink": "-1sd"}, [("ink", 0.3, 0.1, 0.0, 1.0), ("slant", 0.0, 1.0, -3.0, 3.0)]).tolist()
    [-1.0, nan]
    """
    names = [row[0] for row in rows]
    vector = torch.full((len(rows),), math.nan)
    for name, value in where.items():
        if name not in names:
            known = nearest("attribute", name, names) if names else f"This model is told no attributes; got {name!r}."
            raise UnknownNameError(known)
        row = rows[names.index(name)]
        text = str(value).strip()
        number = _read(text.removesuffix("sd"))
        number = number if text.endswith("sd") else (number - row[1]) / row[2]
        if not abs(number) <= LARGEST:
            raise ValueError(f"{name} must be a finite number, such as {row[1]:g}, or 2sd; got {text!r}.")
        vector[names.index(name)] = number
    return vector


def unseen(vector: Tensor, rows: Rows) -> list[str]:
    """Say which of the numbers (d,) that are asked for lie outside what training saw; [] for none."""
    told = []
    for value, (name, mean, deviation, least, greatest) in zip(vector.tolist(), rows):
        raw, slack = mean + deviation * value, 1e-4 * deviation
        if not math.isnan(raw) and not least - slack <= raw <= greatest + slack:
            told.append(f"{name}={raw:g} lies outside what training saw, {least:g} to {greatest:g}.")
    return told
