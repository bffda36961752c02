"""Samplers: walk a grid from noisy to clean. One file is one sampler, found by its name.

Every sampler is a generator function

    def heun(denoiser, x, grid, *, noise=None, label=None, <options>) -> Iterator[State]

that yields one `State(x, level, x0)` after each step of the grid, with x at ``level = grid[i + 1]`` and x0 the estimate
that led there. Progress bars, strips, early stops and saving belong to the caller. A sampler declares ``ORDER``, the
power of the step size with which its error falls on the probability-flow ODE; the tests measure it against closed
forms. A step that adds noise takes it from ``noise(step)``, by `core.noise.drawn`, which raises where there is
none; a deterministic step never asks.
"""
