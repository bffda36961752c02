"""What is told of an image beside its class: numbers of it, and another image."""
