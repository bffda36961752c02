"""What an image costs under a trained run: bits per dimension, rate against distortion, and files that decode.

`likelihood` knows denoisers and levels; this package knows runs: which levels are a run's chain (`chain`), which images
are measured (`measure`), what is written down (`result`), and the files of `sfumato compress` (`file`).
"""
