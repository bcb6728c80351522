"""From a frame to the network's outputs: preprocessing, bundles, back ends."""
