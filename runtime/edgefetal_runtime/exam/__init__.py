"""An examination from its first frame to its record on disk."""
