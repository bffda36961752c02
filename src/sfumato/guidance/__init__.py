"""Guidance: denoisers that wrap denoisers, one file each, found by its name.

A guided denoiser is a denoiser again, so guidance works with every sampler and composes with itself:
``threshold(interval(cfg(d, 3.0), d, 0.3, 5.0))`` is one more denoiser. The weight w of every entry extrapolates from
the weaker estimate, ``weak + w (strong - weak)``: w = 1 means none.
"""
