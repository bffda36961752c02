"""Networks: the only package with weights. One file holds one network, found by its name.

Every network is a module called as

    network(x, c_noise, label) -> Tensor of shape (B, out_channels, H, W)

where `x` is (B, channels, H, W), `c_noise` is (B,) or () in the unit that the network was built for (a table index, a
time in [0, 1], ln(sigma)/4), and `label` is int64 (B,) or None. The label -1 means "no label" for one image, None for
all of them; a labelled network owns a row for it (index `classes`), class 0 is an ordinary class, and an unlabelled
network refuses labels. A classifier returns logits (B, classes) instead; a generator says its own call.

The file `<name>.py` holds a function `<name>(channels, out_channels, classes, size, ...)` whose remaining arguments are
typed options with defaults, so that a recipe names them. Files that start with an underscore hold what networks share:

    _embeddings   noise levels and labels as vectors
    _layers       convolutions, normalisation, attention, resampling
    _count        parameters, multiply-adds and attention memory of any network
    _reach        the receptive field of any network
    _spectral     layers of spectral norm 1, and the projection of a class, for discriminators
"""
