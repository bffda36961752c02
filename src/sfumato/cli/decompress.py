"""``sfumato decompress``: a file of `sfumato compress`, whole or in part, back into pictures."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tyro.conf import Positional, arg

from sfumato.cli._arguments import Count, Folder, Name, device_named, refusal
from sfumato.cli.compress import check_coder

COLUMNS = 12  # of the strip


def decompress(
    run: Annotated[Positional[str], arg(metavar="RUN")],
    file: Annotated[Positional[str], arg(metavar="FILE")],
    *,
    out: Folder = None,
    first: Count = None,
    finish: str = "none",
    strip: Folder = None,
    use: Name = None,
    device: Name = None,
) -> int:
    """Decode a compressed file, or any prefix of it, with the run that made it.

    A file that was cut decodes to a coarser picture. One that was changed, or made with another model, is refused.

    Arguments:
        run: Directory of the run that encoded.
        file: The file, whole or cut anywhere after its header.
        out: The picture, .png, or several numbered ones; FILE-decoded.png, which is not the original, unless given (-o
            for short).
        first: Believe only this many bytes of the file, as if it had been cut there.
        finish: none shows the expected image x0-hat; a sampler walks on from what was received: ancestral for a
            plausible picture, ddim for the probability flow.
        strip: Also draw x0-hat as the bytes arrive, to this .png.
        use: Average of the weights, as when compressing.
        device: cpu, cuda, mps, ...; the best at hand unless given.
    """
    from sfumato.core.reading import read_bytes

    print(f"sfumato decompress {run} {file}", flush=True)  # before torch is imported, which takes seconds

    from collections import deque

    from sfumato.codelength import file as codec
    from sfumato.core.find import find_named
    from sfumato.report.save import save
    from sfumato.report.signature import picture_of
    from sfumato.runs.run import Run

    check_coder()
    if finish != "none":
        find_named("sampler", finish)
    if first is not None and first < 0:
        raise refusal(f"--first counts bytes; got {first}.")
    data = read_bytes(file)[:first]
    model = codec.Model.of(Run.open(run), use, device_named(device))
    header = codec.check_header(model, data)
    states = []
    for state in codec.decode_file(model, data):
        states.append(state)
        if strip is None:
            states = list(deque(states, maxlen=1))
    last = states[-1]
    pictures = codec.picture_of(model, last, header, finish)
    target = Path(out) if out else Path(file).with_name(f"{Path(file).stem}-decoded.png")  # beside the original
    many = len(pictures) > 1
    paths = [target.with_name(f"{target.stem}-{i:03d}.png") if many else target for i in range(len(pictures))]
    for path, picture in zip(paths, pictures):
        save(picture_of(picture), path)
    steps = len(header.grid) - 2
    got = "exact pixels" if last.codes is not None else f"step {last.step} of {steps}"
    bits = 8 * len(data) / pictures.numel()
    print(f"  {got}, {len(data):,} bytes, {bits:.3f} bits/dim" + ("" if last.complete else ": a prefix of the file"))
    print(f"  {paths[0]}" + (f" .. {paths[-1].name}" if many else ""))
    if strip is not None:
        from sfumato.report.sheet import sheet

        count = len(states)
        at = sorted({round(i * (count - 1) / (COLUMNS - 1)) for i in range(COLUMNS)})
        import torch

        shown = torch.stack([codec.picture_of(model, states[i], header) for i in at], 1).flatten(0, 1)
        labels = ["exact" if states[i].codes is not None else f"step {states[i].step}" for i in at]
        picture = sheet(
            shown,
            len(at),
            column_labels=labels,
            title=f"{Path(file).name}: x0-hat as bytes arrive",
            caption=f"{steps} steps; {len(data):,} bytes in all.",
        )
        print(f"  {save(picture, strip)}")
    return 0
