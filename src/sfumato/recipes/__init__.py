"""Known-good recipes: one documented function per published or own configuration."""
