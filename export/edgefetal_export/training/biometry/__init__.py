"""Training the biometry U-Net: outlines in, millimetres judged."""
