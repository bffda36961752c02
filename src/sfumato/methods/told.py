"""Told: nothing is done, as the model itself is told the measurement beside the noisy image (SR3).

Such a model (data.condition=low:4, say) has learned p(x0 | y) for one measurement; it is sampled as any other. The
other methods hold it to the measurement, too.

References:
    Saharia et al. Image Super-Resolution via Iterative Refinement. 2021 (SR3). https://arxiv.org/abs/2104.07636
"""

from __future__ import annotations

from torch import Tensor

from sfumato.core.condition import Label, part_of
from sfumato.core.denoiser import Denoiser, Prediction
from sfumato.core.level import Level
from sfumato.core.task import Task, TaskError


def told(denoiser: Denoiser, task: Task, y: Tensor) -> Denoiser:
    """Sample a model that is told the measurement (data.condition), and change nothing.

    Arguments:
        denoiser: The estimate of x0 given x and what is told beside it.
        task: Any; what a model is told decides.
        y: Measurements, shape (B, *task.measured).

    Raises:
        TaskError: When it is asked without an image beside: the model has not been told what was measured.
    """

    def asked(x: Tensor, level: Level, label: Label | None = None) -> Prediction:
        if part_of(label, "image") is None:
            raise TaskError(
                "The method told samples a model that is told the measurement, and this one is told no image "
                "(data.condition=none). Take the method moment, or train with data.condition=low."
            )
        return denoiser(x, level, label)

    return asked
