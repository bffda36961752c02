"""List everything that is wrong or unusual in a folder or archive of images, before a long run meets it.

A *fault* stops the loading; a *remark* is converted without loss but is worth knowing (a palette, 16-bit grey, an
opaque alpha channel). A file that differs in size or channels from most of the others is a fault unless `size` or
`channels` makes them one. Exact duplicates are counted, because they are drawn more often than others.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from sfumato.data.dataset import DataError
from sfumato.data.gathering import Shape, read_all
from sfumato.data.listing import Listing, labels_of, open_listing


@dataclass(frozen=True)
class Finding:
    """Name a file and what is wrong or unusual about it.

    Arguments:
        name: The file within the source, or "" for the source as a whole.
        reason: Description of the fault or the remark.
        fatal: Whether loading fails because of it.
    """

    name: str
    reason: str
    fatal: bool


@dataclass(frozen=True)
class Report:
    """Hold the outcome of a check.

    Arguments:
        path: Path of the folder or archive.
        count: Number of image files.
        findings: Faults and remarks in the order of the names.
        duplicates: How many files repeat the exact pixels of an earlier one.
        classes: Class names; () if unlabelled.
    """

    path: Path
    count: int
    findings: tuple[Finding, ...]
    duplicates: int
    classes: tuple[str, ...]

    @property
    def faults(self) -> tuple[Finding, ...]:
        """The findings that stop the loading."""
        return tuple(f for f in self.findings if f.fatal)

    def __str__(self) -> str:
        lines = [f"{'BAD ' if f.fatal else 'note'}  {f.name or self.path}: {f.reason}" for f in self.findings]
        notes = len(self.findings) - len(self.faults)
        kinds = f"{len(self.classes)} classes" if self.classes else "unlabelled"
        total = f"{self.path}: {self.count:,} images, {kinds}; {len(self.faults):,} bad, {notes:,} unusual"
        return "\n".join([*lines, f"{total}, {self.duplicates:,} exact duplicates."])


def check(path: str | Path, *, size: int | None = None, channels: int | None = None, alpha: str = "refuse") -> Report:
    """Read every image of a folder or archive and report each bad or unusual file.

    Arguments:
        path: A folder or a .zip file.
        size: Side the images will be resized to; None demands one size.
        channels: Channels they will be converted to, 1 or 3; None demands one number.
        alpha: Treatment of transparency: "refuse", "black", "white" or "drop".

    Returns:
        The report; `str` of it is the listing to print.

    Raises:
        ValueError: If `alpha` is unknown. A missing, unsafe or damaged source is a finding, not an exception.
    """
    try:
        return check_listing(open_listing(path), Shape(size=size, channels=channels, alpha=alpha))
    except DataError as error:
        return Report(Path(path), 0, (Finding("", str(error), True),), 0, ())


def check_listing(listing: Listing, shape: Shape) -> Report:
    """Read every image of an opened source and report each bad or unusual one.

    Arguments:
        listing: The opened folder or archive.
        shape: Size and channels that every image will have.
    """
    path = listing.path
    try:
        found = read_all(listing, shape)
    except DataError as error:
        return Report(path, 0, (Finding("", str(error), True),), 0, ())
    findings: list[Finding] = []
    classes: tuple[str, ...] = ()
    try:
        labels = labels_of(listing)
        classes = () if labels is None else labels[1]
    except DataError as error:
        findings.append(Finding("", str(error), True))
    for f in found:
        findings += [Finding(f.name, f.fault, True)] if f.fault else []
        findings += [Finding(f.name, remark, False) for remark in f.remarks]
    digests = Counter(f.digest for f in found if f.digest)
    return Report(path, len(found), tuple(findings), digests.total() - len(digests), classes)
