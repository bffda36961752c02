"""Images as noise and back: deterministic DDIM run backwards and forwards, and how far it is from exact.

The probability-flow ODE maps an image to noise and the noise to that image. DDIM follows it in N steps, so the way
there and back errs by the discretisation, which falls with N, and by what the model does not know: for the exact
denoiser the encoded noise of many images is unit normal.

References:
    Song, Meng, Ermon. Denoising Diffusion Implicit Models. 2021, section 5.4. https://arxiv.org/abs/2010.02502
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, appendix F. https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from PIL import Image
from torch import Tensor

from sfumato.core.images import to_float, to_uint8
from sfumato.core.level import Level, like
from sfumato.report._canvas import Frame, draw
from sfumato.report.latents import decode, encode_at
from sfumato.report.table import Row
from sfumato.samplers.ddim import encode
from sfumato.sources import Diffusion

NOISE = Level.of(0.0, 1.0)
SHADE = 3.0  # standard deviations of the noise that are shown as black and white


@dataclass(frozen=True, slots=True, eq=False)
class RoundTrip:
    """What became of images on the way to noise and back.

    Attributes:
        noise: The latent over the noise level's sigma, unit normal if all is exact, float (B, *source.space.shape).
        shown: It as a picture of the images' shape, float (B, C, H, W).
        back: What it decodes to, float (B, C, H, W).
        rmse: Root of the mean square error of each image against its original, on 0..255, shape (B,).
        calls: Network calls per image, both ways.
    """

    noise: Tensor
    shown: Tensor
    back: Tensor
    rmse: Tensor
    calls: int


def round_trip(source: Diffusion, images: Tensor, labels: Tensor | None = None) -> RoundTrip:
    """Encode images to the noisy end of a source's grid and decode them again.

    Arguments:
        source: Its sampler must be deterministic `ddim` for the way back to be the way there.
        images: Clean, uint8, shape (B, C, H, W).
        labels: One class per image, int64 (B,), or None for no class.
    """
    seeds = range(len(images))
    x = encode_at(source, images, 0, seeds, labels, encode)
    back = decode(source, x, 0, seeds, labels).clamp(-1, 1).cpu()
    error = 127.5 * (back - to_float(images)).double().square().flatten(1).mean(1).sqrt()
    steps = len(source.grid) - 1
    noise = x / like(source.grid[0].sigma, x)
    return RoundTrip(noise.cpu(), source.space.picture(noise, NOISE).cpu(), back, error, 2 * steps - 1)


def row(steps: int, trip: RoundTrip) -> Row:
    """Return a round trip as a row of a table.

    Arguments:
        steps: Steps of the grid.
        trip: What came of it.
    """
    noise = trip.noise.double()
    right, below = (noise.roll(-1, d).narrow(d, 0, noise.shape[d] - 1) for d in (2, 3))
    here = [noise.narrow(d, 0, noise.shape[d] - 1) for d in (2, 3)]
    pairs = torch.cat([(a * b).flatten() for a, b in zip(here, (right, below))])
    return {
        "steps": steps,
        "calls": trip.calls,
        "RMSE on 0..255": float(trip.rmse.mean()),
        "worst": float(trip.rmse.max()),
        "noise mean": float(noise.mean()),
        "noise sd": float(noise.std()),
        "correlation of neighbours": float(pairs.mean() / noise.square().mean()),
    }


def picture(images: Tensor, trips: Mapping[int, RoundTrip], *, title: str = "", caption: str = "") -> Image.Image:
    """Draw images above their noise and what came back, a pair of rows for each number of steps.

    Arguments:
        images: The originals, uint8, shape (B, C, H, W).
        trips: Steps -> what became of them.
        title: Text above the sheet.
        caption: Text that follows the explanation.
    """
    cells, names = [images], ["image"]
    for steps, trip in trips.items():
        cells += [to_uint8(trip.shown / SHADE), to_uint8(trip.back)]
        names += [f"noise\n{steps} steps", f"back\nRMSE {float(trip.rmse.mean()):.3g}"]
    words = f"Real images, DDIM backwards to noise (±{SHADE:g} sd from black to white) and forwards again. {caption}"
    frame = Frame(title=title, rows=names, columns=(), caption=words.strip())
    return draw(torch.cat(cells), len(images), frame)[0]
