"""What training minimises: each objective turns a denoiser and a batch into one loss per image."""
