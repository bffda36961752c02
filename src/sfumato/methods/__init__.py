"""Methods: a denoiser that knows a measurement, made of one that does not. One file is one method, found by its name.

An entry is called as ``NAME(denoiser, task, y, **options)`` and returns a denoiser of x0 given x and y, for a batch of
pictures as long as y. So every sampler, grid and guidance works under it: guide first, restore outside. A method that
asks for `sigma_data` is told the standard deviation of clean pixels.

All but the projections follow from Bayes' rule and Tweedie's formula,

    E[x0 | x, y] = D(x) + (sigma^2 / alpha) grad_x ln p(y | x),    p(y | x) ~ N(A D(x), V)
                 = D(x) + C A^T V^-1 (y - A D(x)),                 C = (sigma^2 / alpha) dD/dx = Cov[x0 | x]

and differ in V. If nothing is measured, a method is the denoiser it was given.
"""
