"""The canvas of every pixel picture: a grid of cells with labels around it and a caption below.

Cell (r, c) of a grid of H x W images, enlarged k times by nearest neighbour (each image pixel stays one square of one
colour), has its corner at

    left = L + c (k W + g) + G floor(c / m'),    top = T + r (k H + h + g) + G floor(r / m)

with margins L, T that the labels need, gap g, h for a line of notes below each image, and an extra gap G after every
m rows and every m' columns. `Layout.box` is this formula and `draw` pastes by it, so a test can cut every image out
again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from sfumato.core.images import planes
from sfumato.report._text import font, leading, size_of, wrap
from sfumato.report.resolution import resolution
from sfumato.report.signature import picture_of

INK, MUTED, PAPER = (28, 28, 32), (96, 96, 104), (255, 255, 255)
LEGIBLE = 64  # pixels: smaller images are enlarged to at least this
NARROWEST = 360  # pixels: a caption needs some width even below one small image
PAD = 10
GAP, EXTRA = 3, 10  # pixels between cells, and more between groups of them


def enlargement(height: int, width: int) -> int:
    """Return the whole factor that makes the longer side at least `LEGIBLE` pixels.

    >>> [enlargement(s, s) for s in (8, 28, 32, 64, 128)]
    [8, 3, 2, 1, 1]
    """
    return max(1, -(-LEGIBLE // max(height, width)))


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the cells of a grid lie.

    Attributes:
        columns: Number of cells in a row.
        cell: Height and width of a cell in picture pixels.
        corner: Top and left of the first cell.
        note: Pixels below each cell for its note.
        group: Rows after which an extra gap follows; 0 for none.
        block: Columns after which an extra gap follows; 0 for none.
        zoom: Picture pixels per image pixel.
        scale: By how much gaps are larger (`report.resolution`).
    """

    columns: int
    cell: tuple[int, int]
    corner: tuple[int, int] = (0, 0)
    note: int = 0
    group: int = 0
    block: int = 0
    zoom: int = 1
    scale: int = 1

    def box(self, i: int) -> tuple[int, int, int, int]:
        """Return (left, top, right, bottom) of cell i, counted along rows."""
        row, column = divmod(i, self.columns)
        height, width = self.cell
        gap, extra = GAP * self.scale, EXTRA * self.scale
        down = extra * (row // self.group) if self.group else 0
        right = extra * (column // self.block) if self.block else 0
        top = self.corner[0] + row * (height + self.note + gap) + down
        left = self.corner[1] + column * (width + gap) + right
        return left, top, left + width, top + height


@dataclass(frozen=True, slots=True)
class Frame:
    """The words around a grid.

    Attributes:
        title: Text above everything.
        rows: One label per row, or ().
        columns: One label per column (per block of columns, if there are blocks), or (); newlines separate lines.
        corner: Label of the labels' own corner: what the columns count.
        caption: Below everything, wrapped to the picture's width.
        notes: One line below each image, or ().
        group: Rows after which an extra gap follows; 0 for none.
        block: Columns after which an extra gap follows; 0 for none.
    """

    title: str = ""
    rows: Sequence[str] = ()
    columns: Sequence[str] = ()
    corner: str = ""
    caption: str = ""
    notes: Sequence[str] = ()
    group: int = 0
    block: int = 0


def check(images: Tensor) -> Tensor:
    """Return images as they are drawn (`core.images.planes`).

    Raises:
        TypeError: If they are not uint8.
        ValueError: If they are not (B, C, H, W) with B >= 1 and C >= 1.
    """
    if str(images.dtype) != "torch.uint8":
        raise TypeError(f"Pictures are made of uint8 images; got {images.dtype}. Use core.images.to_uint8.")
    if images.ndim != 4 or images.shape[0] == 0 or images.shape[1] == 0:
        raise ValueError(
            f"Pictures take images of shape (B, C, H, W) with B >= 1 and C >= 1; got {tuple(images.shape)}."
        )
    return planes(images.cpu())


def pixels(image: Tensor) -> Image.Image:
    """Return one uint8 image (C, H, W) as RGB."""
    return picture_of(image).convert("RGB")


def draw(images: Tensor, columns: int, frame: Frame, *, zoom: int | None = None) -> tuple[Image.Image, Layout]:
    """Draw a grid of images and the words around it.

    Arguments:
        images: uint8, shape (B, C, H, W), laid out along rows.
        columns: Images per row, >= 1.
        frame: The words around the grid.
        zoom: Picture pixels per image pixel at a resolution of 1; None for the smallest that is legible.

    Returns:
        The picture, its caption under ``info["Description"]`` too, and where its cells are.

    Raises:
        ValueError: If labels do not match the rows and columns.
    """
    images = check(images)
    if columns < 1:
        raise ValueError(f"A sheet has at least one column; got {columns}.")
    count, _, height, width = images.shape
    rows = -(-count // columns)
    block = frame.block or 1
    expected_labels = (("row", frame.rows, rows), ("column", frame.columns, -(-columns // block)))
    for what, labels, expected in (*expected_labels, ("image", frame.notes, count)):
        if labels and len(labels) != expected:
            raise ValueError(f"One label per {what}: got {len(labels)} labels for {expected} {what}s.")
    k = resolution()
    zoom = k * (zoom or enlargement(height, width))
    cell = (height * zoom, width * zoom)
    face, small, tiny, title_face = font(13 * k), font(12 * k), font(10 * k), font(15 * k, bold=True)
    pad, span = PAD * k, block * (cell[1] + GAP * k) - GAP * k
    names = _fit(frame.columns, span, small)
    upright = all(size_of(name, small)[0] <= span + GAP * k for name in names)
    head = max((size_of(name, small)[1 if upright else 0] for name in names), default=0)
    side = max((size_of(text, face)[0] for text in (*frame.rows, frame.corner)), default=0)
    left = pad + (side + 8 * k if side else 0)
    note = leading(tiny) + k if frame.notes else 0
    layout = Layout(columns, cell, (0, left), note, frame.group, frame.block, zoom, k)
    total_width = max(layout.box(columns - 1)[2] + pad, NARROWEST * k)
    title = wrap(frame.title, total_width - 2 * pad, title_face) if frame.title else []
    title_height = leading(title_face) * len(title) + (6 * k if title else 0)
    layout = replace(layout, corner=(pad + title_height + (head + 5 * k if head else 0), left))
    bottom = layout.box(count - 1)[3] + layout.note
    caption = wrap(frame.caption, total_width - 2 * pad, small) if frame.caption else []
    total_height = bottom + pad + (leading(small) * len(caption) + 2 * k if caption else 0)

    picture = Image.new("RGB", (total_width, total_height), PAPER)
    pen = ImageDraw.Draw(picture)
    _lines(pen, title, (pad, pad), title_face, INK)
    for i, image in enumerate(images):
        picture.paste(pixels(image).resize((cell[1], cell[0]), Image.Resampling.NEAREST), layout.box(i)[:2])
    for i, text in enumerate(frame.notes):
        box = layout.box(i)
        _lines(pen, [text], (round((box[0] + box[2] - tiny.getlength(text)) / 2), box[3] + k), tiny, MUTED)
    for row, text in enumerate(frame.rows):
        box = layout.box(row * columns)
        top = (box[1] + box[3] - size_of(text, face)[1]) // 2
        for i, line in enumerate(text.split("\n")):
            _lines(pen, [line], (left - 8 * k - size_of(line, face)[0], top + i * leading(face)), face, INK)
    for column, text in enumerate(names):
        first, last = layout.box(column * block), layout.box(min((column + 1) * block, columns) - 1)
        _column_label(picture, text, (first[0] + last[2]) // 2, layout.corner[0] - 5 * k, small, upright)
    if frame.corner and upright:
        w, _ = size_of(frame.corner, small)
        _lines(pen, frame.corner.split("\n"), (left - 8 * k - w, layout.corner[0] - 5 * k - head), small, MUTED)
    _lines(pen, caption, (pad, bottom + 8 * k), small, MUTED)
    picture.info["Description"] = ". ".join(part for part in (frame.title, frame.caption) if part)
    return picture, layout


def _fit(labels: Sequence[str], width: int, face: ImageFont.FreeTypeFont) -> list[str]:
    """Break labels at spaces where that makes them fit."""
    return ["\n".join(wrap(label, width, face)) for label in labels]


def _lines(
    pen: ImageDraw.ImageDraw,
    lines: Sequence[str],
    corner: tuple[int, int],
    face: ImageFont.FreeTypeFont,
    ink: tuple[int, int, int],
) -> None:
    for i, line in enumerate(lines):
        pen.text((corner[0], corner[1] + i * leading(face)), line, font=face, fill=ink)


def _column_label(
    picture: Image.Image, text: str, centre: int, bottom: int, face: ImageFont.FreeTypeFont, upright: bool
) -> None:
    """Write a label centred above a column, or turned upwards where it is wider than the column."""
    width, height = size_of(text, face)
    label = Image.new("RGB", (max(width, 1), max(height, 1)), PAPER)
    pen = ImageDraw.Draw(label)
    for i, line in enumerate(text.split("\n")):
        pen.text(((width - face.getlength(line)) / 2 if upright else 0, i * leading(face)), line, font=face, fill=INK)
    if not upright:
        label = label.rotate(90, expand=True)
    picture.paste(label, (centre - label.width // 2, bottom - label.height))
