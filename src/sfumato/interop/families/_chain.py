"""What the families of discrete chains share: DDPM, iDDPM, ADM and diffusers know the steps of one table."""

from __future__ import annotations

from sfumato.recipes._paper import FID_50K, RAW, ancestral
from sfumato.runs.recipe import Data, Part, Recipe, Sample, Shape, part


def chain_recipe(
    name: str,
    data: Data,
    shape: Shape,
    network: Part,
    schedule: Part,
    *,
    target: str = "eps",
    variance: str = "none",
    sample: Sample | None = None,
) -> Recipe:
    """Return the recipe of a network that is told the step of a discrete chain.

    Arguments:
        name: Name of the recipe.
        data, shape: Dataset and shape of its images.
        network, schedule: Parts of the recipe.
        target: What the network predicts, a name of a target.
        variance: Head of the network for the variance, "none" or "range".
        sample: How images are made; ancestral on the full chain unless given.
    """
    learned = variance == "range"
    objective = "hybrid" if learned else "denoising"
    return Recipe(
        name=name,
        data=data,
        schedule=schedule,
        target=part("target", target),
        network=network,
        c_noise=part("conditioning", "index"),
        c_in="one",
        variance="range" if learned else "none",
        draw=part("draw", "uniform"),
        weighting=part("weighting", "simple"),
        objective=part("objective", objective, label_dropout=0.0),
        sigma_data=0.5,
        ema=RAW,
        sample=sample or ancestral("learned" if learned else "large"),
        evaluate=FID_50K,
        shape=shape,
    )
