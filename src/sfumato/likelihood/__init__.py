"""How many bits does an image cost? The variational bound, the probability-flow likelihood, and a codec that pays them.

Three answers that never share a column: the bound on the mass of the pixel codes (`vlb`), the density of dequantised
images along the ODE (`ode`), and the length of a file that decodes (`coding`).
"""
