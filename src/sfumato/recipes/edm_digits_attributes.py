"""Models that are told more than a class: attributes of an image, or the image in low resolution.

Attributes are measured on the images (`data.told.attributes`), so that obedience can be measured on the samples:
`sfumato evaluate RUN --metrics obedience`. CelebA's forty are read beside its images.
"""

from __future__ import annotations

from dataclasses import replace

from sfumato.recipes._paper import square
from sfumato.recipes.digits import edm_digits
from sfumato.recipes.edm import edm_ffhq64
from sfumato.recipes.fashion_mnist import edm_fashion_mnist_cpu
from sfumato.runs.recipe import Data, Recipe, part

MEASURED = ("ink", "slant", "width")
CELEBA = (
    *("5_o_clock_shadow", "arched_eyebrows", "attractive", "bags_under_eyes", "bald", "bangs", "big_lips", "big_nose"),
    *("black_hair", "blond_hair", "blurry", "brown_hair", "bushy_eyebrows", "chubby", "double_chin", "eyeglasses"),
    *("goatee", "gray_hair", "heavy_makeup", "high_cheekbones", "male", "mouth_slightly_open", "mustache"),
    *("narrow_eyes", "no_beard", "oval_face", "pale_skin", "pointy_nose", "receding_hairline", "rosy_cheeks"),
    *("sideburns", "smiling", "straight_hair", "wavy_hair", "wearing_earrings", "wearing_hat", "wearing_lipstick"),
    *("wearing_necklace", "wearing_necktie", "young"),
)


def edm_digits_attributes() -> Recipe:
    """EDM on digits, told the class and three measured numbers: ink, slant and width.

    Paper: Karras et al., 2022 (network, optimiser and budget are those of edm-digits; the numbers come through a linear
    layer beside the class table).
    Command: sfumato train edm-digits-attributes; sfumato sample runs/edm-digits-attributes --where ink=0.4,slant=0.2
    Cost: 100,000 images.
    Expected: no published score.
    """
    base = edm_digits()
    return replace(
        base,
        name="edm-digits-attributes",
        data=Data("digits", attributes=MEASURED),
        objective=part("objective", "denoising", label_dropout=0.2, vector_dropout=0.2),
        train=replace(base.train, images=100_000),
    )


def edm_fashion_mnist_attributes_cpu() -> Recipe:
    """EDM on Fashion-MNIST, told the class and three measured numbers: ink, slant and width; for two CPU cores.

    Paper: Karras et al., 2022 (network, optimiser and budget are those of edm-fashion-mnist-cpu).
    Command: sfumato train edm-fashion-mnist-attributes-cpu
    Cost: 200,000 images.
    Expected: no published score.
    Measured here: FD[fashion_mnist] 1.00 [0.67, 1.32] under the conditions of test images; n = 1,000 against the 10,000
    test images, floor 0.02 [-0.04, 0.08], one seed (docs/results/conditions.md).
    """
    return replace(
        edm_fashion_mnist_cpu(),
        name="edm-fashion-mnist-attributes-cpu",
        data=Data("fashion-mnist", attributes=MEASURED),
        objective=part("objective", "denoising", label_dropout=0.2, vector_dropout=0.2),
    )


def sr3_digits() -> Recipe:
    """Super-resolution of digits, 4x4 to 8x8: the image in low resolution is told beside the noisy one.

    Paper: Saharia et al., Image Super-Resolution via Iterative Refinement, 2021 (network, noise and budget are those of
    edm-digits, whose images are shown without their twin in a tenth of training, which the paper never does).
    Command: sfumato train sr3-digits; sfumato sample runs/sr3-digits --like-image LOW.png
    Cost: 40,000 images.
    Expected: no published score.
    """
    return _sr3(replace(edm_digits(), name="sr3-digits", data=Data("digits", labels=False, condition="low:2")))


def sr3_fashion_mnist_cpu() -> Recipe:
    """Super-resolution of Fashion-MNIST, 7x7 to 28x28, for two CPU cores.

    Paper: Saharia et al., 2021 (network, noise and budget are those of edm-fashion-mnist-cpu).
    Command: sfumato train sr3-fashion-mnist-cpu
    Cost: 200,000 images.
    Expected: no published score.
    Measured here: FD[fashion_mnist] 0.3 [-0.8, 1.4] of enlarged test images; n = 200 against the 9,800 others, floor
    -0.5 [-2.0, 1.1], one seed (docs/results/conditions.md).
    """
    data = Data("fashion-mnist", labels=False, condition="low:4")
    return _sr3(replace(edm_fashion_mnist_cpu(), name="sr3-fashion-mnist-cpu", data=data))


def _sr3(recipe: Recipe) -> Recipe:
    return replace(recipe, objective=part("objective", "denoising", image_dropout=0.1))


def celeba_64_attributes() -> Recipe:
    """EDM on CelebA at 64x64, told the forty attributes that come with it.

    Paper: Karras et al., 2022 (network and training are those of edm-ffhq64, without its augmentation).
    Command: sfumato train celeba-64-attributes; sfumato sample RUN --where smiling=1,male=0
    Hardware and time: 50 EFLOP, as edm-ffhq64.
    Expected: no published score.
    """
    return replace(
        edm_ffhq64(),
        name="celeba-64-attributes",
        data=Data("celeba", size=64, labels=False, attributes=CELEBA),
        shape=square(64),
    )
