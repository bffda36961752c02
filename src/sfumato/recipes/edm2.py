"""EDM2 at paper scale in pixels: magnitude-preserving layers, a learned weight per level, power-function averages.

Class-conditional without label dropout; the rate ramps up over 10 million images and falls with the square root of the
updates beyond 35,000; precision was fp16 (here bf16). The guiding weight comes afterwards: autoguidance by a smaller,
shorter-trained model takes S to 1.01 (weight 1.7).

References:
    Karras et al. Analyzing and Improving the Training Dynamics of Diffusion Models. 2024.
    https://arxiv.org/abs/2312.02696
    Karras et al. Guiding a Diffusion Model with a Bad Version of Itself. 2024. https://arxiv.org/abs/2406.02507
"""

from __future__ import annotations

from sfumato.recipes._paper import FID_50K, square
from sfumato.runs.recipe import Data, Ema, Recipe, Sample, Train, part


def edm2_imagenet64_s() -> Recipe:
    """EDM2-S on ImageNet at 64x64.

    Paper: Karras et al., Analyzing and Improving the Training Dynamics of Diffusion Models, 2024.
    Command: sfumato train edm2-imagenet64-s data.name=folder:PATH ema.use=power-0.05
    Hardware and time: 649 EFLOP for 1,074 million images.
    Expected: FID 1.58 in 63 evaluations with an average of relative width 0.075 (n = 50,000, training set).
    """
    return _edm2("edm2-imagenet64-s", 192, 0.010)


def edm2_imagenet64_xs() -> Recipe:
    """EDM2-XS on ImageNet at 64x64, also the guide of S.

    Paper: Karras et al., 2024.
    Command: sfumato train edm2-imagenet64-xs data.name=folder:PATH
    Hardware and time: 289 EFLOP for 1,074 million images.
    Expected: no published score.
    """
    return _edm2("edm2-imagenet64-xs", 128, 0.012)


def _edm2(name: str, width: int, lr: float) -> Recipe:
    return Recipe(
        name=name,
        data=Data("folder:imagenet", size=64, test=0.0),
        target=part("target", "edm"),
        network=part("network", "edm2", width=width),
        c_noise=part("conditioning", "quarter-log-nsr"),
        c_in="unit-variance",
        draw=part("draw", "lognormal", mean=-0.8, std=1.6),
        weighting=part("weighting", "edm"),
        objective=part("objective", "uncertainty", label_dropout=0.0, stratified=False, reduce="sum"),
        sigma_data=0.5,
        train=Train(
            images=1024 * 2**20,
            batch=2048,
            optimizer=part("optimizer", "adam", lr=lr, beta2=0.99),
            rate=part("rate", "inverse-sqrt", warmup=10e6, after=35_000.0 * 2048),
            precision="bf16",
        ),
        ema=Ema(power=(0.05, 0.10), use="power-0.05"),
        sample=Sample(part("sampler", "heun"), part("grid", "karras", steps=32)),
        evaluate=FID_50K,
        shape=square(64, 1000),
    )
