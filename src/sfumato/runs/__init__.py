"""What a run is: its recipe, the parts it names, its checks, checkpoints and weights."""
