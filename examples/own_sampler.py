"""A sampler of your own is a generator of states. Here: Ralston's rule, its order measured on a known density."""

import math

import torch

from sfumato.core.denoiser import State
from sfumato.core.exact import Gaussian
from sfumato.core.level import Level
from sfumato.grids import logsnr


def ralston(denoiser, x, grid, *, noise=None, label=None):
    """Look two thirds ahead and weigh both slopes 1 : 3 (needs alpha = 1)."""
    for i in range(len(grid) - 1):
        t, s = grid[i].sigma, grid[i + 1].sigma
        ahead = t + 2 / 3 * (s - t)
        slope = (x - denoiser(x, grid[i], label).x0) / t
        there = x + (ahead - t) * slope
        x0 = denoiser(there, Level(torch.ones_like(ahead), ahead), label).x0
        x = x + (s - t) * (slope / 4 + 3 / 4 * (there - x0) / ahead)
        yield State(x, grid[i + 1], x0)


data = Gaussian(torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 0.25], dtype=torch.float64))
start = torch.tensor([[40.0, -30.0], [10.0, 60.0]], dtype=torch.float64)
errors = []
for steps in (40, 80, 160):
    grid = logsnr(steps, 0.02, 80.0)[:-1]  # without the last step to sigma = 0
    *_, last = ralston(data, start, grid)
    exact = start * ((data.variances + 0.02**2) / (data.variances + 80.0**2)).sqrt()  # the ODE's own solution
    errors.append(float((last.x - exact).abs().max()))
    order = math.log2(errors[-2] / errors[-1]) if len(errors) > 1 else float("nan")
    print(f"{steps:4} steps: error {errors[-1]:.2e}, order {order:.2f}")
# as src/sfumato/samplers/ralston.py, with ORDER = 2, it would be listed, tested and usable on the command line
