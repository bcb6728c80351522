"""Training: augmentation, the loop with resume, and what a run leaves on disk."""
