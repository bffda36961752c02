"""The demo: class-conditional EDM on 8x8 handwritten digits."""

from __future__ import annotations

from sfumato.training.recipe import Data, Ema, Evaluate, Recipe, Sample, Train, part


def edm_digits() -> Recipe:
    """EDM on the UCI digits (8x8): the demo, one minute on two cores."""
    return Recipe(
        name="edm-digits",
        data=Data("digits"),
        network=part("networks", "unet", width=64, mult=(1, 2), patch=1, attention=(1,), blocks=2),
        target=part("core.target", "edm"),
        train=Train(
            images=120_000,
            batch=64,
            optimizer=part("training.optim", "muon"),
            rate=part("training.rates", "linear", warmup=6400.0, hold=0.4),
            precision="bf16",
        ),
        ema=Ema(power=(0.05, 0.10), use="power-0.10"),
        sample=Sample(sampler=part("samplers", "heun"), grid=part("grids", "karras", steps=18)),
        evaluate=Evaluate(extractor="pixels", n=1000),
    )
