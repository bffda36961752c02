"""Parameters and multiply-adds of the published configurations, counted on the meta device."""

from __future__ import annotations

import pytest
import torch

from sfumato.core.find import find
from sfumato.networks._count import Shapes, cost, parameter_count

ADM_128 = {"size": 128, "width": 160, "mult": (1, 1, 2, 3, 4), "blocks": 2, "out_channels": 6, "classes": 1000}
BASE = ADM_128 | {"attention": (16,), "heads": 1, "head_width": 0, "resample": "conv"}
TABLE_2 = ADM_128 | {"width": 128, "heads": 1, "head_width": 0}
IDDPM = {"width": 128, "blocks": 3, "attention": (16, 8), "heads": 4, "head_width": 0, "resample": "conv"}
HIGH = {"mult": (1, 1, 2, 2, 4, 4), "blocks": 2, "out_channels": 6}
NCSN = {"fourier": True, "taps": (1, 3, 3, 1), "image_path": True}
SDE = {"mult": (1, 2, 2, 2)}

BIG = {"channels": 3, "out_channels": 3, "size": 128, "depths": (2, 2, 2, 2), "heads": (4, 4, 4, 8, 8)}
TINY = BIG | {"depths": (1, 2, 4), "heads": (4, 4, 4, 4)}
GARMENTS = {"classes": 10}
TWO = {"widths": (64, 128, 256), "up": (64, 64)}

# network, options, parameters as published, GMAC as published (None = not listed)
PUBLISHED = {
    "ddpm-32": ("ddpm", {}, 35_746_307, 6.22),
    "ddpm-32 learned variance": ("ddpm", {"out_channels": 6}, 35_746_307 + 3_459, None),
    "ddim-celeba64": ("ddpm", {"size": 64, "mult": (1, 2, 2, 2, 4)}, 78_700_803, 24.1),
    "ddpm-256": ("ddpm", {"size": 256, "mult": (1, 1, 2, 2, 4, 4)}, 113_673_219, 249),
    "ddpm-256 large": ("ddpm", {"size": 256, "width": 192, "mult": (1, 1, 2, 2, 4, 4)}, 255_677_955, 559),
    "iddpm-32": ("adm", IDDPM | {"size": 32, "mult": (1, 2, 2, 2), "out_channels": 6}, 52_546_438, 8.39),
    "iddpm-32 fixed variance": ("adm", IDDPM | {"size": 32, "mult": (1, 2, 2, 2)}, 52_542_979, None),
    "iddpm-64": ("adm", IDDPM | {"out_channels": 6}, 121_063_942, 39.7),
    "iddpm-64 fixed variance": ("adm", IDDPM, 121_060_483, None),
    "iddpm-64-cond": ("adm", IDDPM | {"width": 192, "out_channels": 6, "classes": 1000}, 273_049_350, 89.1),
    "iddpm-lsun": (
        "adm",
        HIGH | {"size": 256, "width": 128, "attention": (16,), "heads": 1, "head_width": 0}
        | {"resample": "conv", "adaptive": False},
        113_676_678, 249,
    ),
    "adm-64": ("adm", {"out_channels": 6, "classes": 1000}, 295_904_454, 109.7),
    "adm-128": ("adm", ADM_128 | {"width": 256, "head_width": 0}, 421_529_606, 307),
    "adm-256": ("adm", HIGH | {"size": 256, "width": 256, "classes": 1000}, 553_838_086, 1120),
    "adm-256 unconditional": ("adm", HIGH | {"size": 256, "width": 256}, 552_814_086, None),
    "adm-512": (
        "adm", HIGH | {"size": 512, "width": 256, "classes": 1000, "mult": (0.5, 1, 1, 2, 2, 4, 4)}, 558_997_638, 1982,
    ),
    "up 64-256": ("adm", HIGH | {"size": 256, "channels": 6, "classes": 1000, "head_width": 0}, 311_795_910, None),
    "up 128-512": (
        "adm", HIGH | {"size": 512, "channels": 6, "classes": 1000, "attention": (32, 16)}, 308_835_270, None,
    ),
    "adm table 1 base": ("adm", BASE, 140_830_246, 103),
    "adm table 1 base unconditional": ("adm", BASE | {"classes": 0}, 140_190_246, None),
    "adm table 1 depth": ("adm", BASE | {"width": 128, "blocks": 4}, 146_187_142, 110),
    "adm table 1 attention": ("adm", BASE | {"attention": (32, 16, 8)}, 151_099_046, 109),
    "adm table 1 updown": ("adm", BASE | {"resample": "block"}, 154_698_886, 115),
    "adm table 1 all": ("adm", BASE | {"attention": (32, 16, 8), "resample": "block", "heads": 4}, 164_967_686, 121),
    "adm table 3 AdaGN": ("adm", TABLE_2 | {"head_width": 64}, 105_710_598, 78),
    "adm table 3 addition": ("adm", TABLE_2 | {"head_width": 64, "adaptive": False}, 100_457_478, None),
    "DDPM++": ("songunet", SDE, 61_804_419, 10.85),
    "DDPM++ deep": ("songunet", SDE | {"blocks": 8}, 106_632_579, 18.5),
    "NCSN++ cont.": ("songunet", SDE | NCSN, 62_758_787, 11.0),
    "NCSN++ cont. deep": ("songunet", SDE | NCSN | {"blocks": 8}, 107_586_947, 18.7),
    "edm cifar VP": ("songunet", {"augments": 9}, 55_733_891, 21.2),
    "edm cifar VP cond": ("songunet", {"augments": 9, "classes": 10}, 55_735_299, 21.2),
    "edm cifar VE": ("songunet", NCSN | {"augments": 9}, 56_397_827, 21.4),
    "edm cifar VE cond": ("songunet", NCSN | {"augments": 9, "classes": 10}, 56_400_643, 21.4),
    "edm cifar config E": ("songunet", {}, 55_732_739, None),
    "edm 64 VP": ("songunet", SDE | {"size": 64, "augments": 9}, 61_805_571, 41.9),
    "edm 64 VE": ("songunet", SDE | NCSN | {"size": 64, "augments": 9}, 62_761_091, 42.4),
    "edm imagenet-64": ("adm", {"classes": 1000, "group_width": 4}, 295_899_267, 109.7),
    "consistency VE": ("songunet", NCSN, 56_395_523, None),
    "OT-CFM": (
        "adm",
        {"size": 32, "width": 128, "mult": (1, 2, 2, 2), "blocks": 2, "attention": (16,), "resample": "conv"}
        | {"adaptive": False, "head_width": 0},
        35_746_307, None,
    ),
    "FM-OT block": (
        "adm", {"size": 32, "width": 256, "mult": (1, 2, 2, 2), "blocks": 2, "attention": (16,)}, 171_268_099, 28.1,
    ),
    "FM-OT conv": (
        "adm",
        {"size": 32, "width": 256, "mult": (1, 2, 2, 2), "blocks": 2, "attention": (16,), "resample": "conv"},
        153_094_915, 24.5,
    ),
    "Meta flow matching": (
        "adm",
        {"size": 32, "width": 128, "mult": (2, 2, 2), "blocks": 4, "attention": (16,), "resample": "mean"},
        55_676_419, 20.2,
    ),
    "progressive distillation": (
        "adm",
        {"size": 32, "width": 256, "mult": (1, 1, 1), "blocks": 3, "attention": (16, 8), "heads": 1, "head_width": 0}
        | {"sin_first": True, "endpoint": True},
        60_004_099, 17.9,
    ),
    "edm2 XS": ("edm2", {"classes": 1000}, 124_710_949 - 128, 44.9),
    "edm2 S": ("edm2", {"width": 192, "classes": 1000}, 280_209_381 - 128, 100.8),
    "DiT-XL/2": (
        "dit",
        {"channels": 4, "out_channels": 8, "classes": 1000, "size": 32, "width": 1152, "depth": 28, "heads": 16},
        675_129_632 - 256 * 1152, None,
    ),
    "000 FashionMNIST": ("condnorm_unet", GARMENTS, 5_031_081, 1.74),
    "000 FashionMNIST plain": ("condnorm_unet", GARMENTS | {"attention": ()}, 4_150_953, 0.97),
    "000 CIFAR-10": ("condnorm_unet", GARMENTS | {"channels": 3, "out_channels": 3}, 5_033_387, None),
    "000 CIFAR-10 plain": (
        "condnorm_unet", GARMENTS | {"channels": 3, "out_channels": 3, "attention": ()}, 4_153_259, None,
    ),
    "000 CelebA big": ("condnorm_unet", BIG, 81_317_715, 33.6),
    "000 CelebA small": ("condnorm_unet", BIG | {"attention": (16, 8)}, 80_246_611, 30.4),
    "000 CelebA tiny": ("condnorm_unet", TINY | {"attention": (16,)}, 35_181_651, 28.2),
    "000 CelebA tiny plain": ("condnorm_unet", TINY | {"attention": ()}, 30_942_291, 26.8),
    "002 UNet": ("cifar_unet", {}, 23_332_739, 1.85),
    "002 UNet_conditional": ("cifar_unet", {"classes": 10}, 23_335_299, 1.85),
    "002 UNet_2xUD": ("cifar_unet", TWO, 16_062_083, 2.37),
    "002 half channels": ("cifar_unet", TWO | {"widths": (32, 64, 128), "middle": (256, 256, 128)}, 4_268_419, 0.87),
    "002 SmallUNet_1": (
        "cifar_unet", TWO | {"widths": (32, 64, 128), "middle": (256, 128), "plain": (3,)}, 3_062_531, 0.64,
    ),
}  # fmt: skip


def null_row(network: str, options: dict) -> int:
    """Return how many parameters our null label adds where the original has none."""
    if not options.get("classes"):
        return 0
    width = options.get("width", {"adm": 192, "edm2": 128}.get(network))
    return {"adm": 4, "edm2": 4}[network] * width if network in ("adm", "edm2") else 256 * (network == "cifar_unet")


def build(network: str, options: dict) -> torch.nn.Module:
    with torch.device("meta"):
        return find("network", network)(**options)


@pytest.mark.parametrize("name", PUBLISHED)
def test_parameters(name):
    network, options, parameters, _ = PUBLISHED[name]
    assert parameter_count(build(network, options)) == parameters + null_row(network, options)


def gmac_row(name: str):
    small = PUBLISHED[name][3] < 9
    return pytest.param(name, marks=() if small else pytest.mark.slow)


@pytest.mark.parametrize("name", [gmac_row(name) for name, row in PUBLISHED.items() if row[3] is not None])
def test_multiply_adds(name):
    network, options, _, published = PUBLISHED[name]
    size = options.get("size", 64 if network in ("adm", "edm2") else 32)
    channels = options.get("channels", 1 if network == "condnorm_unet" else 3)
    measured = cost(build(network, options), (channels, size, size)).gmac
    assert measured == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize(
    ("options", "parameters", "gmac"),
    [
        ({}, 65_438_568, 19),
        ({"size": 128, "mult": (1, 1, 2, 3, 4), "blocks": 2}, 42_568_040, 21),
        ({"size": 256, "mult": (1, 1, 2, 2, 4, 4), "blocks": 2}, 54_096_360, 73),
        ({"size": 512, "mult": (0.5, 1, 1, 2, 2, 4, 4), "blocks": 2}, 54_448_360, 113),
    ],
)
def test_classifiers(options, parameters, gmac):
    network = build("adm_classifier", options)
    assert parameter_count(network) == parameters
    size = options.get("size", 64)
    assert cost(network, (3, size, size)).gmac == pytest.approx(gmac, rel=0.03)


def test_plain_network_of_source_002_within_a_percent():
    report = cost(build("convnet", {}), (3, 32, 32))
    assert report.parameters == pytest.approx(4_072_899, rel=0.01)
    assert report.gmac == pytest.approx(0.21, abs=0.005)


@pytest.mark.parametrize(
    ("options", "generator", "discriminator"),
    [
        ({}, 1_183_616, 663_296),
        ({"up": (256, 256, 64), "down": (128, 128, 256)}, 1_839_232, 797_440),
        ({"up": (512, 256, 128)}, 3_677_952, 663_296),
        ({"up": (512, 128, 64)}, 2_232_704, 663_296),
        # ten classes: an embedding of ten numbers, and one row more for the null label
        ({"up": (256, 256, 64), "classes": 10}, 1_880_192 + 110, 673_536 + 110),
        # 28 pixels: z -> 128 at 7x7 -> 64 at 14 -> 1 at 28, kernels of 7 at the ends
        ({"size": 28, "channels": 1, "up": (128, 64), "down": (64, 128)}, 935_296, 138_624),
        # 14 pixels: z -> 128 at 4x4 -> 64 at 7 -> 1 at 14, kernels of 3 between 4 and 7
        ({"size": 14, "channels": 1, "up": (128, 64), "down": (64, 128)}, 337_280, 77_056),
        ({"size": 64, "latent": 100, "up": (512, 256, 128, 64), "down": (64, 128, 256, 512)}, 3_576_704, 2_765_568),
    ],
)
def test_dcgan(options, generator, discriminator):
    network = build("dcgan", options)
    assert parameter_count(network.generator) == generator
    assert parameter_count(network.discriminator) == discriminator


@pytest.mark.parametrize(
    ("options", "generator", "discriminator"),
    [
        ({}, 4_276_739, 1_053_824),
        ({"channels": 1, "size": 8, "latent": 32, "up": (64,), "down": (64,), "flat": 1}, 112_769, 111_616),
        # ten classes: a gain and a bias in six norms for each, and a vector; one row more for the null label
        ({"classes": 10}, 4_276_739 + (11 - 1) * 6 * 512, 1_053_824 + 11 * 128),
    ],
)
def test_sngan(options, generator, discriminator):
    """By hand, G at 32 pixels: 129 * 16 * 256 + 3 * (2 * 590,080 + 65,792 + 1,024) + 512 + 6,915."""
    network = build("sngan", options)
    assert parameter_count(network.generator) == generator
    assert parameter_count(network.discriminator) == discriminator


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_group_normalisation_of_known_shape_is_that_of_torch(dtype, layout):
    """With and without what knows it: shape, type and strides, and what autograd keeps of it has the same shapes."""
    x = torch.empty(2, 8, 6, 4, dtype=dtype, device="meta").to(memory_format=layout)
    normalise = torch.ops.aten.native_group_norm.default
    plain = normalise(x, None, None, 2, 8, 24, 4, 1e-5)
    with Shapes():
        known = normalise(x, None, None, 2, 8, 24, 4, 1e-5)
    assert [t.shape for t in known] == [t.shape for t in plain]
    assert (known[0].dtype, known[0].device) == (plain[0].dtype, plain[0].device)
    ours, theirs = torch.randn(2, 8, 6, 4), torch.randn(2, 8, 6, 4)
    with Shapes():  # of what has values nothing changes
        assert torch.equal(torch.nn.functional.group_norm(ours, 4), torch.nn.functional.group_norm(ours.clone(), 4))
        assert not torch.equal(torch.nn.functional.group_norm(ours, 4), torch.nn.functional.group_norm(theirs, 4))
