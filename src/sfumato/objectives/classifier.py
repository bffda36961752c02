"""Cross-entropy of a noisy classifier: -ln p(y | x) on x = alpha x0 + sigma n, at every level.

The classifier that guides a diffusion model must know noisy images, so it is trained as the model is: a level is drawn
per image and the clean image is never seen. Its accuracy falls from that of an ordinary classifier to chance as the
noise grows; how fast is the curve to look at, since guidance acts where it is neither.

References:
    Dhariwal, Nichol. Diffusion Models Beat GANs on Image Synthesis. 2021, section 4. https://arxiv.org/abs/2105.05233
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor
from torch.nn import functional

from sfumato.core.classifier import NoisyClassifier
from sfumato.core.level import Level
from sfumato.objectives._noising import Loss, Noising

TRAINS = "classifier"


def classifier(
    draw: Callable[[Tensor], Level], classes: int, seed: int, batch: int, stratified: bool = True
) -> Callable[..., Loss]:
    """Make the cross-entropy of a noisy classifier, with its accuracy by noise level.

    Arguments:
        draw: Quantile function of the training levels; that of the model to be guided.
        classes: Number of classes, >= 2.
        seed: Seed of the run.
        batch: Global batch size, for stratification.
        stratified: Spread the batch's levels evenly over the quantiles of the draw.

    Returns:
        A function of classifier, x0 (B, C, H, W), label int64 (B,) and positions int64 (B,), giving a `Loss` in nats
        with the part "accuracy".

    Raises:
        ValueError: If there are fewer than two classes.
    """
    if classes < 2:
        raise ValueError(
            f"A classifier tells at least 2 classes apart; this recipe's data has {classes}. Use labelled data, and "
            "data.labels=true."
        )
    noising = Noising(draw, seed, batch, 0.0, stratified)

    def loss(
        model: NoisyClassifier, x0: Tensor, label: Tensor | None, positions: Tensor, augment: Tensor | None = None
    ) -> Loss:
        if label is None:
            raise ValueError("The classifier objective needs a label for every image; this batch has none.")
        level = noising.levels(positions)
        logits = model(level.noisy(x0, noising.noise(x0, positions)), level)
        right = (logits.argmax(1) == label).to(logits.dtype)
        return Loss(functional.cross_entropy(logits, label, reduction="none"), level, {"accuracy": right})

    return loss
