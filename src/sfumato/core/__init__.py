"""What every package speaks: levels, targets, kernels, gauges, denoisers, addressed noise and images.

Nothing here knows networks, files or flags. Two types are the narrow waists of the project: everything trained
meets everything sampled at `Denoiser`, and everything that makes images meets everything that judges them at
`ImageSource`.
"""

from sfumato.core.denoiser import NULL, Denoiser, Preconditioned, Prediction, Sampler, State, Target
from sfumato.core.gauge import Gauge
from sfumato.core.images import ImageSource
from sfumato.core.kernel import Kernel
from sfumato.core.level import Level, Schedule
from sfumato.core.table import Table

__all__ = [
    "NULL",
    "Denoiser",
    "Gauge",
    "ImageSource",
    "Kernel",
    "Level",
    "Preconditioned",
    "Prediction",
    "Sampler",
    "Schedule",
    "State",
    "Table",
    "Target",
]
