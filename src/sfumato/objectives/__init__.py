"""What training minimises: each objective turns a model and a batch into one loss per image.

One file holds one objective: a function of its name that makes the loss from a draw, a weighting, a table, whatever it
asks for, and the constant ``TRAINS`` that says what is trained: a "denoiser" or a "classifier" of noisy images. The
loss is called as ``loss(model, x0, label, positions, augment)`` and returns a `Loss`. An objective that owns learned
numbers is an nn.Module; they are trained and saved with the network.
"""

from sfumato.objectives._noising import Loss

__all__ = ["Loss"]
