"""Features of the FID Inception network: the only ones whose Frechet distance is called FID.

The weights are not part of this package.  Bring the file `pt_inception-2015-12-05-6726825d.pth` (`weights=PATH`, or
put it into the data root, where it is found by its name), or let it be downloaded once (`weights="download"`, 96 MB,
into the cache folder of the user; a download that was cut goes on where it stopped, and later commands find the file).
On the command line both are `--weights FILE` and `--weights download`.  Either way the file is used only if the sha256
of its bytes begins with 6726825d and its 566 tensors have the names, dtypes and shapes of the network; it is read
without executing anything in it.

Images of any size are resized inside the extractor to 299x299 (mode in `sfumato.metrics.resize`, default tf1 as in the
original graph) and scaled by (x - 128)/128; a grey image is repeated in three channels.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfumato.core.find import nearest
from sfumato.download import Remote, cache_folder, fetch
from sfumato.metrics.extractors._brought import WeightsError, read_file
from sfumato.metrics.features import ImageShape, check_colours, check_images, exact_float32
from sfumato.metrics.inception_net import SIZE, InceptionNet, Outputs, blank
from sfumato.metrics.resize import RESIZES

HASH = "6726825d"
NAME = f"pt_inception-2015-12-05-{HASH}.pth"
WEIGHTS = Remote(
    f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{NAME}",
    95_628_359,
    sha256=f"{HASH}0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
)


def check_state(state: Any) -> dict[str, Tensor]:
    """Refuse anything but the 566 tensors of the network, by name, dtype and shape."""
    want = {key: (value.dtype, tuple(value.shape)) for key, value in blank().state_dict().items()}
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise WeightsError("The weights file does not hold a dictionary of tensors.")
    got = {key: (value.dtype, tuple(value.shape)) for key, value in state.items()}
    wrong = sorted(key for key in want.keys() | got.keys() if want.get(key) != got.get(key))
    if wrong:
        raise WeightsError(
            f"{len(wrong)} of {len(want)} tensors are missing, unknown or of another shape; the first "
            f"is {wrong[0]}: expected {want.get(wrong[0])}, got {got.get(wrong[0])}."
        )
    return state


def read_weights(path: Path, begins: str = HASH) -> tuple[InceptionNet, str]:
    """Read a weights file after checking its hash.

    Arguments:
        path: The file.
        begins: How the sha256 of the file must begin.

    Returns:
        The network in evaluation mode, normalisation folded, and the full sha256.

    Raises:
        WeightsError: If the file is missing, has another hash, or does not hold the network's tensors.
    """
    state, found = read_file(path, NAME, begins, download=True)
    net = blank()
    net.load_state_dict(check_state(state), assign=True)
    return net.fold(), found


def download(folder: Path | None = None, remote: Remote = WEIGHTS) -> Path:
    """Fetch the weights once, with a progress bar; cut short, the next call goes on; another file is not kept.

    Arguments:
        folder: Where to keep it; default: `sfumato` in the user's cache folder.
        remote: Where it is, how long, and its checksum.

    Returns:
        The path of the file.

    Raises:
        WeightsError: If it cannot be fetched, or is another file.
    """
    remedy = "Fetch it elsewhere and name it by --weights FILE (in Python: the extractor's option weights='FILE')."
    return fetch(remote, folder or cache_folder(), remedy=remedy, error=WeightsError)


class InceptionFeatures:
    """Features of the Inception network.

    Arguments:
        net: The network, folded.
        weights_hash: sha256 of its file, or the rule that made it.
        shape: (C, H, W) of the images, C = 1 or 3.
        resize: "tf1", "half_pixel" or "clean".
        spatial: True gives the 2023 spatial features of sFID, False the 2048 pooled ones of FID.
    """

    def __init__(
        self, net: InceptionNet, weights_hash: str, shape: ImageShape, resize: str = "tf1", spatial: bool = False
    ):
        check_colours("inception", shape)
        if resize not in RESIZES:
            raise ValueError(nearest("resize mode", resize, RESIZES))
        self.net, self.weights_hash, self.shape, self.resize, self.spatial = net, weights_hash, shape, resize, spatial
        self.name = "inception-spatial" if spatial else "inception"
        self.dimension = 2023 if spatial else 2048
        self.classes = 1008
        self._last: list[tuple[Tensor, Outputs]] = []  # shared with the twin: one pass serves both

    def spatial_twin(self) -> InceptionFeatures:
        """Return the extractor of sFID's features over the same network; a batch both are asked for costs one pass."""
        twin = InceptionFeatures(self.net, self.weights_hash, self.shape, self.resize, spatial=True)
        twin._last = self._last
        return twin

    def outputs(self, images: Tensor) -> Outputs:
        """Map uint8 images (B, C, H, W) to pooled and spatial features; the last batch is remembered."""
        check_images(self.name, images, self.shape)
        if self._last and self._last[0][0] is images:
            return self._last[0][1]
        self._last[:] = [(images, self._pass(images))]
        return self._last[0][1]

    def _pass(self, images: Tensor) -> Outputs:
        self.net.to(images.device)
        with exact_float32(images.device):
            x = RESIZES[self.resize](images.to(torch.float32), SIZE).sub_(128).div_(128)
            x = x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
            return self.net(x)

    def __call__(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to float32 features (B, d)."""
        outputs = self.outputs(images)
        return outputs.spatial if self.spatial else outputs.pool

    def logits(self, images: Tensor) -> Tensor:
        """Map uint8 images (B, C, H, W) to the logits (B, 1008) of the Inception Score: without the bias."""
        with exact_float32(images.device):
            return self.net.logits(self.outputs(images).pool)

    def describe(self) -> dict[str, Any]:
        """Describe how an image becomes features; part of a score's protocol."""
        return {
            "layer": "Mixed_6d.branch1x1[:7]" if self.spatial else "pool3",
            "resize": f"{self.resize} {SIZE}",
            "scaling": "(x - 128) / 128",
            "dtype": "float32",
            "grey": "repeated in 3 channels",
        }


def inception(shape: ImageShape, weights: str = NAME, resize: str = "tf1", spatial: bool = False) -> InceptionFeatures:
    """Compare features of the FID Inception network: FID, d = 2048, or sFID (spatial=true), d = 2023.

    Arguments:
        shape: (C, H, W) of the images, C = 1 or 3.
        weights: Path of the weights file, its name in the cache or the data root, or "download".
        resize: "tf1", "half_pixel" or "clean".
        spatial: True for the features of sFID.

    Raises:
        WeightsError: If the file is missing or not the FID network.
    """
    net, found = read_weights(download() if weights == "download" else Path(weights))
    return InceptionFeatures(net, found, shape, resize, spatial)
