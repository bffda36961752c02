"""Coding images with a model: entropy coder, channel, steps, container, rate."""
