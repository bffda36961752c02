"""sfumato: the design space of diffusion models as a directory tree.

Every paper is a recipe made of the same parts, and every score carries the protocol that makes it comparable.
Importing this package does not import torch; the rooms (`sfumato.core`, `sfumato.samplers`, ...) do.
"""

__version__ = "0.1.0.dev0"
