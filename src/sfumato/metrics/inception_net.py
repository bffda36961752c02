"""The FID Inception network: InceptionV3 as frozen in the classifier of 2015-12-05, in PyTorch, with its own names.

It differs from the usual InceptionV3: average pools in the branches do not count padding; the last block (Mixed_7c)
has a max pool there; 1008 outputs; no auxiliary head.  Every convolution is without bias and followed by batch
normalisation (eps 1e-3) and ReLU.  The names of modules are those of the checkpoint that everyone uses, so its 566
tensors load as they are.

    first    3 -> 64, 299 -> 73        conv s2, conv, conv, max pool
    second   64 -> 192, 73 -> 35       conv 1x1, conv 3x3, max pool
    third    192 -> 768, 35 -> 17      Mixed_5b 5c 5d, 6a, 6b 6c 6d 6e
    last     768 -> 2048, 17 -> 8      Mixed_7a 7b 7c, spatial mean = pool3
    fc       2048 -> 1008

The spatial features of sFID are the first 7 channels of the 1x1 branch of Mixed_6d: 7 x 17 x 17 = 2023 numbers.

References:
    Szegedy, Vanhoucke, Ioffe, Shlens, Wojna. Rethinking the Inception Architecture for Computer Vision. 2015.
        https://arxiv.org/abs/1512.00567
    Nash, Menick, Dieleman, Battaglia. Generating Images with Sparse Representations. 2021.
        https://arxiv.org/abs/2103.03841 (sFID)
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

SIZE, SPATIAL_CHANNELS = 299, 7


class ConvBN(nn.Module):
    """Convolution, batch normalisation, ReLU; after `fold` the normalisation is inside the convolution."""

    def __init__(
        self, cin: int, cout: int, kernel: int | tuple[int, int], stride: int = 1, padding: int | tuple[int, int] = 0
    ):
        super().__init__()
        self.conv = nn.Conv2d(cin, cout, kernel, stride, padding, bias=False)
        self.bn: nn.Module = nn.BatchNorm2d(cout, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu_(self.bn(self.conv(x)))

    def fold(self) -> None:
        """Put the normalisation of evaluation mode into the convolution, in place."""
        if isinstance(self.bn, nn.BatchNorm2d):
            self.conv, self.bn = fuse_conv_bn_eval(self.conv, self.bn), nn.Identity()


def wide(cin: int, cout: int, length: int) -> ConvBN:
    """Return a convolution of 1 x length that keeps the size."""
    return ConvBN(cin, cout, (1, length), padding=(0, length // 2))


def tall(cin: int, cout: int, length: int) -> ConvBN:
    """Return a convolution of length x 1 that keeps the size."""
    return ConvBN(cin, cout, (length, 1), padding=(length // 2, 0))


def mean3(x: Tensor) -> Tensor:
    """Average 3x3 neighbourhoods, not counting what lies outside the image."""
    return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)


def halve(x: Tensor) -> Tensor:
    """Take the maximum of 3x3 neighbourhoods at every second place."""
    return functional.max_pool2d(x, 3, 2)


class MixedA(nn.Module):
    """35x35: branches 1x1, 5x5, double 3x3, pool."""

    def __init__(self, cin: int, pool: int):
        super().__init__()
        self.branch1x1 = ConvBN(cin, 64, 1)
        self.branch5x5_1 = ConvBN(cin, 48, 1)
        self.branch5x5_2 = ConvBN(48, 64, 5, padding=2)
        self.branch3x3dbl_1 = ConvBN(cin, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, padding=1)
        self.branch_pool = ConvBN(cin, pool, 1)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat(
            (self.branch1x1(x), self.branch5x5_2(self.branch5x5_1(x)), double, self.branch_pool(mean3(x))), 1
        )


class MixedB(nn.Module):
    """35x35 -> 17x17: branches 3x3, double 3x3, max pool."""

    def __init__(self, cin: int):
        super().__init__()
        self.branch3x3 = ConvBN(cin, 384, 3, stride=2)
        self.branch3x3dbl_1 = ConvBN(cin, 64, 1)
        self.branch3x3dbl_2 = ConvBN(64, 96, 3, padding=1)
        self.branch3x3dbl_3 = ConvBN(96, 96, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat((self.branch3x3(x), double, halve(x)), 1)


class MixedC(nn.Module):
    """17x17: branches 1x1, 7x7, double 7x7, pool; 7x7 as 1x7 and 7x1."""

    def __init__(self, cin: int, c7: int):
        super().__init__()
        self.branch1x1 = ConvBN(cin, 192, 1)
        self.branch7x7_1 = ConvBN(cin, c7, 1)
        self.branch7x7_2 = wide(c7, c7, 7)
        self.branch7x7_3 = tall(c7, 192, 7)
        self.branch7x7dbl_1 = ConvBN(cin, c7, 1)
        self.branch7x7dbl_2 = tall(c7, c7, 7)
        self.branch7x7dbl_3 = wide(c7, c7, 7)
        self.branch7x7dbl_4 = tall(c7, c7, 7)
        self.branch7x7dbl_5 = wide(c7, 192, 7)
        self.branch_pool = ConvBN(cin, 192, 1)

    def branches(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the 1x1 branch and the other three."""
        single = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return self.branch1x1(x), torch.cat((single, double, self.branch_pool(mean3(x))), 1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(self.branches(x), 1)


class MixedD(nn.Module):
    """17x17 -> 8x8: branches 3x3, 7x7 then 3x3, max pool."""

    def __init__(self, cin: int):
        super().__init__()
        self.branch3x3_1 = ConvBN(cin, 192, 1)
        self.branch3x3_2 = ConvBN(192, 320, 3, stride=2)
        self.branch7x7x3_1 = ConvBN(cin, 192, 1)
        self.branch7x7x3_2 = wide(192, 192, 7)
        self.branch7x7x3_3 = tall(192, 192, 7)
        self.branch7x7x3_4 = ConvBN(192, 192, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        seven = self.branch7x7x3_4(self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x))))
        return torch.cat((self.branch3x3_2(self.branch3x3_1(x)), seven, halve(x)), 1)


class MixedE(nn.Module):
    """8x8: branches 1x1, 3x3 forked, double 3x3 forked, pool (mean in 7b, maximum in 7c)."""

    def __init__(self, cin: int, maximum: bool):
        super().__init__()
        self.maximum = maximum
        self.branch1x1 = ConvBN(cin, 320, 1)
        self.branch3x3_1 = ConvBN(cin, 384, 1)
        self.branch3x3_2a = wide(384, 384, 3)
        self.branch3x3_2b = tall(384, 384, 3)
        self.branch3x3dbl_1 = ConvBN(cin, 448, 1)
        self.branch3x3dbl_2 = ConvBN(448, 384, 3, padding=1)
        self.branch3x3dbl_3a = wide(384, 384, 3)
        self.branch3x3dbl_3b = tall(384, 384, 3)
        self.branch_pool = ConvBN(cin, 192, 1)

    def forward(self, x: Tensor) -> Tensor:
        single, double = self.branch3x3_1(x), self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        pooled = functional.max_pool2d(x, 3, 1, 1) if self.maximum else mean3(x)
        return torch.cat(
            (
                self.branch1x1(x),
                self.branch3x3_2a(single),
                self.branch3x3_2b(single),
                self.branch3x3dbl_3a(double),
                self.branch3x3dbl_3b(double),
                self.branch_pool(pooled),
            ),
            1,
        )


class Outputs(NamedTuple):
    """What the network says of images: pool3 (B, 2048) and the sFID features (B, 2023)."""

    pool: Tensor
    spatial: Tensor


class InceptionNet(nn.Module):
    """The network, from float images (B, 3, 299, 299) scaled by (x - 128)/128 to features."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = ConvBN(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = ConvBN(32, 32, 3)
        self.Conv2d_2b_3x3 = ConvBN(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = ConvBN(64, 80, 1)
        self.Conv2d_4a_3x3 = ConvBN(80, 192, 3)
        self.Mixed_5b = MixedA(192, 32)
        self.Mixed_5c = MixedA(256, 64)
        self.Mixed_5d = MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b = MixedC(768, 128)
        self.Mixed_6c = MixedC(768, 160)
        self.Mixed_6d = MixedC(768, 160)
        self.Mixed_6e = MixedC(768, 192)
        self.Mixed_7a = MixedD(768)
        self.Mixed_7b = MixedE(1280, maximum=False)
        self.Mixed_7c = MixedE(2048, maximum=True)
        self.fc = nn.Linear(2048, 1008)

    def first(self, x: Tensor) -> Tensor:
        """Map (B, 3, 299, 299) to (B, 64, 73, 73)."""
        return halve(self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x))))

    def second(self, x: Tensor) -> Tensor:
        """Map (B, 64, 73, 73) to (B, 192, 35, 35)."""
        return halve(self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(x)))

    def third(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Map (B, 192, 35, 35) to (B, 768, 17, 17) and the spatial map (B, 7, 17, 17)."""
        x = self.Mixed_6a(self.Mixed_5d(self.Mixed_5c(self.Mixed_5b(x))))
        point, others = self.Mixed_6d.branches(self.Mixed_6c(self.Mixed_6b(x)))
        return self.Mixed_6e(torch.cat((point, others), 1)), point[:, :SPATIAL_CHANNELS]

    def last(self, x: Tensor) -> Tensor:
        """Map (B, 768, 17, 17) to pool3 (B, 2048)."""
        return self.Mixed_7c(self.Mixed_7b(self.Mixed_7a(x))).mean((2, 3))

    def forward(self, x: Tensor) -> Outputs:
        middle, spatial = self.third(self.second(self.first(x)))
        return Outputs(self.last(middle), spatial.flatten(1))

    def logits(self, pool: Tensor, bias: bool = False) -> Tensor:
        """Map pool3 to logits (B, 1008); the Inception Score is defined without the bias."""
        return functional.linear(pool, self.fc.weight, self.fc.bias if bias else None)

    def fold(self) -> InceptionNet:
        """Fold every normalisation into its convolution: the same function in evaluation mode, fewer passes."""
        for module in self.eval().modules():
            if isinstance(module, ConvBN):
                module.fold()
        return self.requires_grad_(False).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def blank() -> InceptionNet:
    """Return the network without memory for weights; load a state dict with `assign=True`."""
    with torch.device("meta"):
        return InceptionNet()
