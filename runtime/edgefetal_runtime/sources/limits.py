"""What every source takes for granted of frames: the largest that a machine makes, and how fast they come."""

# A 4K screen has 8 million pixels and an hour at 50 Hz 180,000 frames; a header that states more is damaged, or a bomb.
MAX_FRAME_PIXELS = 64_000_000
MAX_FRAMES = 200_000
# Where a file does not say how fast it was taken.
DEFAULT_FRAMES_PER_S = 30.0
