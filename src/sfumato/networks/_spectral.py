"""Layers divided by their largest singular value, so that a discriminator cannot be steep.

    W' = W / s(W),   s(W) = max |W h| / |h|,   W as a matrix (outputs, everything else)

A network of such layers and activations of slope at most 1 has slope at most 1. s is estimated by the power method, one
round a pass of training, which is enough because W moves slowly:

    v = W^T u / |W^T u|,   u = W v / |W v|,   s = u^T W v

u is kept between passes, saved with the weights, and set back where a step is left out; v follows from it. Gradients go
through W in s, not through u and v.

References:
    "Spectral Normalization for Generative Adversarial Networks", Miyato et al., 2018,
        https://arxiv.org/abs/1802.05957, algorithm 1
    "cGANs with Projection Discriminator", Miyato and Koyama, 2018, https://arxiv.org/abs/1802.05637, eq. (4)
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from sfumato.core.condition import Label

from ._embeddings import LabelTable


class _Spectral(nn.Module):
    """What the layers below share: a weight, and the direction u that its power method has reached."""

    weight: Tensor
    u: Tensor

    def _begin(self) -> None:
        self.register_buffer("u", F.normalize(torch.randn(len(self.weight)), dim=0))

    def divided(self) -> Tensor:
        """Return the weight over its largest singular value, after a round of the power method in training."""
        rows = self.weight.flatten(1)  # products by hand: autocast would round those of torch
        with torch.no_grad():
            v = F.normalize((rows * self.u[:, None]).sum(0), dim=0)
            if self.training:
                self.u.copy_(F.normalize((rows * v).sum(1), dim=0))
            u = F.normalize(self.u, dim=0)  # an average of directions is shorter; a copy, so that it may move on
        return self.weight / (u * (rows * v).sum(1)).sum()


class SpectralConv(_Spectral, nn.Conv2d):
    """A convolution of spectral norm 1, as a matrix from patches to channels."""

    def __init__(self, width_in: int, width_out: int, kernel: int, **options: int | bool) -> None:
        nn.Conv2d.__init__(self, width_in, width_out, kernel, **options)  # type: ignore[arg-type]
        self._begin()

    def forward(self, x: Tensor) -> Tensor:
        return self._conv_forward(x, self.divided(), self.bias)


class SpectralLinear(_Spectral, nn.Linear):
    """A linear layer of spectral norm 1."""

    def __init__(self, width_in: int, width_out: int, bias: bool = True) -> None:
        nn.Linear.__init__(self, width_in, width_out, bias)
        self._begin()

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.divided(), self.bias)


class SpectralEmbedding(_Spectral, nn.Embedding):
    """A table of vectors of spectral norm 1."""

    def __init__(self, rows: int, width: int) -> None:
        nn.Embedding.__init__(self, rows, width)
        self._begin()

    def forward(self, rows: Tensor) -> Tensor:
        return F.embedding(rows, self.divided())


def power_states(network: nn.Module) -> list[Tensor]:
    """Return the directions that the power methods of a network have reached, the live tensors."""
    return [module.u for module in network.modules() if isinstance(module, _Spectral)]


class Projection(nn.Module):
    """What a class adds to a logit: the product of its learned vector with the image's features.

    Of densities p of the data and q of what is made, the best logit is
    ln p(x|y)/q(x|y) + ln p(y)/q(y): where p(y|x) is a softmax of linear functions of features h(x), its part with the
    class is v_y . h(x).

    Arguments:
        classes: Number of classes, 0 = unlabelled: nothing is added.
        width: Number of features.
        spectral: Whether the table of vectors is divided by its largest singular value.
    """

    def __init__(self, classes: int, width: int, spectral: bool) -> None:
        super().__init__()
        self.label = LabelTable(classes, width)
        if classes and spectral:
            self.label.table = SpectralEmbedding(classes + 1, width)
        if self.label.table is not None:
            nn.init.xavier_uniform_(self.label.table.weight)

    def forward(self, logit: Tensor, h: Tensor, label: Label | None) -> Tensor:
        """Return logits (B,) with what the class of each image adds, of features h (B, width)."""
        row = self.label(label, len(h), h.device)
        return logit if row is None else logit + (row.to(h.dtype) * h).sum(dim=1)
