"""The training engine: recipes' types, assembly of parts, loop, EMA, optimisers, checkpoints, guards and runs."""
