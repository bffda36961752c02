"""CFG++: renoise with the unconditional estimate.

A first-order step goes to the guided estimate x0 and keeps the noise of the estimate that x is renoised with. Guidance
adds to x0 what no image at this level would show, and noise computed from it carries that on to every later step, off
the images. CFG++ keeps the noise of the unconditional estimate D_u instead,

    x_s = alpha_s x0 + kept (x_t - alpha_t D_u) / sigma_t,

which is the step of the unconditional walk plus alpha_s (x0 - D_u). Its x0 interpolates, w in [0, 1]; at w = 0 both are
the unconditional walk.

References:
    Chung, Kim, Park, Nam, Ye. CFG++: Manifold-Constrained Classifier Free Guidance for Diffusion Models. 2024,
    algorithm 2. https://arxiv.org/abs/2406.08070
"""

from __future__ import annotations

from torch import Tensor

from sfumato.core.denoiser import Prediction, clipped
from sfumato.core.level import Level, like


def renoising(prediction: Prediction, clip: bool | float = False) -> Tensor:
    """Return the estimate whose noise a step keeps: the unconditional one, or x0 where guidance made no other.

    Arguments:
        prediction: The answer of a denoiser.
        clip: Clips it as the sampler clips x0.
    """
    without = prediction.unconditional
    return clipped(prediction.x0 if without is None else without, clip)


def shifted(x: Tensor, x0: Tensor, without: Tensor, end: Level) -> Tensor:
    """Return images of the unconditional step, moved to the guided estimate: x + alpha (x0 - D_u).

    Arguments:
        x: Images at the level `end`, stepped to with D_u.
        x0, without: The guided estimate and D_u, the shape of x.
        end: Level of x.
    """
    return x + like(end.alpha, x) * (x0 - without)
