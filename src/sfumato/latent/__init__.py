"""Latents: an autoencoder as a value, the space that a sampler walks, and what a latent costs in nats."""
