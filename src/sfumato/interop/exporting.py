"""Export: a run in another project's format, whole or not at all."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from sfumato.core.find import find
from sfumato.core.reading import with_a_name
from sfumato.core.writing import check_writable
from sfumato.interop import hub
from sfumato.interop.tensors import ForeignError
from sfumato.runs.run import Run


def export_run(
    run: Run, to: str, out: Path | str, *, use: str | None = None, push: str | None = None, private: bool = False
) -> list[str]:
    """Write a run in a format, and put it on the Hub if asked.

    Arguments:
        run: The run to write.
        to: Name of a format: an entry of `interop.exports`.
        out: A folder that does not exist or is empty.
        use: Name of the average of the weights; None for the recipe's choice.
        push: OWNER/NAME of a repository on the Hub; None for none.
        private: Whether a new repository is private.

    Returns:
        What was written, in lines to print.

    Raises:
        UnknownNameError: For a format that does not exist.
        ForeignError: If the format cannot hold the run, the folder is not empty, or the Hub refuses.
    """
    run.require_pixels("An export")
    write, out = find("export", to), with_a_name(Path(out))
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ForeignError(f"{out} exists and is not empty. Give another --out.")
    check_writable(out, folder=True)
    for name, tensor in run.network(use).state_dict().items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            raise ForeignError(
                f"{name} of {run.path} has values that are not finite; nothing is exported. Train it anew."
            )
    part = out.with_name(f".{out.name}.{os.getpid()}")
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    try:
        lines: list[str] = write(run, part, use)
        if out.exists():
            out.rmdir()
        part.rename(out)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    lines = [line.replace(str(part), str(out)) for line in lines]
    return [*lines, f"pushed: {hub.upload(out, push, private=private)}"] if push else lines
