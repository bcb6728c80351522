"""Training: what a run leaves on disk (`run.py`), and a room for each family of networks."""
