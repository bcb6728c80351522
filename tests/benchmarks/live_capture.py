"""What a live capture costs: the hand-over of a frame from the child, its rate and its latency.

python tests/benchmarks/live_capture.py
"""

from __future__ import annotations

import os
import resource
import time

import numpy as np

from edgefetal_runtime.sources.live.drill import test_picture
from edgefetal_runtime.sources.live.live import open_live
from edgefetal_runtime.sources.live.ring import Board, Newest, RingReader, RingWriter, create_ring

SIZE_PX = (744, 562)
ROUNDS = 2000
FRAMES = 300


def hand_over() -> None:
    """Time the writer and the reader apart, in one process: locks, copies, the comparison with the frame before."""
    ring = create_ring()
    writer, reader = RingWriter(ring), RingReader(ring)
    pictures = [test_picture(number, SIZE_PX) for number in range(2)]
    written, read = [], []
    for number in range(ROUNDS):
        began = time.perf_counter()
        writer.shows_newest(pictures[number % 2])
        writer.publish(pictures[number % 2], Board(captured=number + 1, newest=Newest(number=number)))
        between = time.perf_counter()
        reader.fetch(number)
        written.append(between - began)
        read.append(time.perf_counter() - between)
    reader.close()
    os.close(ring)
    for name, times in (("child, compare and publish", written), ("parent, fetch", read)):
        print(f"{name}: median {1e6 * np.median(times):.0f} us, 99th centile {1e6 * np.quantile(times, 0.99):.0f} us")


def live(fps: int) -> None:
    """Time real captures at a rate; 0 is as fast as it goes."""
    source = open_live(f"drill:size={SIZE_PX[0]}x{SIZE_PX[1]},fps={fps},frames={FRAMES if fps else 10 * FRAMES}")
    began_s, used = time.monotonic(), resource.getrusage(resource.RUSAGE_SELF)
    late = [time.monotonic() - frame.arrived_s for frame in source.frames() if frame.arrived_s is not None]
    took_s, after = time.monotonic() - began_s, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime
    print(
        f"{fps or 'no'} fps asked: {len(late)} of {source.status.received} frames in {took_s:.2f} s; from the driver "
        f"to the consumer median {1e3 * np.median(late):.2f} ms, 99th centile {1e3 * np.quantile(late, 0.99):.2f} ms; "
        f"parent's processor {1e3 * cpu_s / len(late):.2f} ms a frame"
    )


if __name__ == "__main__":
    hand_over()
    for rate in (30, 60, 0):
        live(rate)
