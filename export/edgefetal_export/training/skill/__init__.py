"""Training skill assessment without ratings: a task network and a skill network in turn."""
