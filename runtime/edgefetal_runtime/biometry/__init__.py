"""From a probability map to measurements with units, or to the reason why there is none."""
