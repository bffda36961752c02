"""Several processes of one training or evaluation: who does what, and who is alive. Knows no recipe."""
