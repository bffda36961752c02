"""``sfumato export``: a run in another project's format."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Folder, Name, Overrides, refuse_idle, settled


def export(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    overrides: Overrides = (),
    *,
    to: str = "safetensors",
    out: Folder = None,
    use: Name = None,
    push: Name = None,
    private: bool = False,
) -> int:
    """Write a run in another format: safetensors, diffusers or onnx; with --push also to the Hugging Face Hub.

    What a format cannot hold is refused with the reason; nothing is half written. A model card with the scores and
    their protocols goes with it.

    Arguments:
        run: Directory of a run.
        overrides: Fields of `sample` to set, which decide the pipeline and its scheduler.
        to: safetensors (a compact run), diffusers (a pipeline folder) or onnx (a graph of the network).
        out: Where it goes; RUN/exports/FORMAT unless given.
        use: Average of the weights, e.g. power-0.05, or raw; the recipe's choice unless given.
        push: Also put it on the Hub as OWNER/NAME.
        private: Make a new repository on the Hub private.
    """
    if push is None:
        refuse_idle(export, locals(), ("private",), "An export to this machine, without --push,")
    print(f"sfumato export {run} --to {to}", flush=True)  # before torch is imported, which takes seconds

    from sfumato.interop.exporting import export_run
    from sfumato.runs.run import Run

    opened = Run.open(run)
    opened = settled(opened, overrides, ("sample",), use)
    folder = out or opened.path / "exports" / to
    for line in export_run(opened, to, folder, use=use, push=push, private=private):
        print(f"  {line}")
    print(f"Written to {folder}")
    return 0
