"""Does the interval of `bench --against` keep its word here? A bundle against itself, and against itself slowed by 5 %.

    python tests/benchmarks/ratio_repeats.py starter --repeats 20

Of a bundle against itself the interval must hold 1 in at least 19 of 20 repeats; a planted slowdown must be found. Both
are judged by the processor's clock and by the wall clock, on whatever else the machine does meanwhile.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from edgefetal.starter import bundle_folder
from edgefetal_runtime.bench.conditions import read_busy, read_own
from edgefetal_runtime.bench.versus import time_versus
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.infer.bundle import load_bundle
from edgefetal_runtime.infer.golden import golden_pixels
from edgefetal_runtime.infer.network import load_network
from edgefetal_runtime.scale import NOT_GIVEN

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from edgefetal_runtime.infer.backends import Backend
    from edgefetal_runtime.infer.network import Network


@dataclass(frozen=True)
class Slowed:
    """A back end that takes longer than another by a share of its processor's time."""

    inner: Backend
    share: float

    @property
    def name(self) -> str:
        """Return the back end's name."""
        return self.inner.name

    @property
    def lanes(self) -> int:
        """Return how many threads may run it side by side."""
        return self.inner.lanes

    def run(self, image: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
        """Run the graph, then spin."""
        since_s = time.thread_time()
        answer = self.inner.run(image)
        now_s = time.thread_time()
        until_s = now_s + self.share * (now_s - since_s)
        while time.thread_time() < until_s:
            pass
        return answer


def main() -> None:
    """Print every repeat, and how many kept their word."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--blocks", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=16)
    parser.add_argument("--slowdown", type=float, default=0.05)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    bundle = load_bundle(bundle_folder(asked.bundle))
    frames = [Frame(pixels, "golden", n, 0.0, NOT_GIVEN) for n, pixels in enumerate(golden_pixels(bundle))]

    def load() -> Network:
        return load_network(bundle, threads=1)

    def load_slowed() -> Network:
        network = load()
        return replace(network, backend=Slowed(network.backend, asked.slowdown))

    since_s, busy_s, own_s = time.monotonic(), read_busy()[0], read_own()
    found: dict[str, list[dict[str, object]]] = {"itself": [], "slowed": []}
    for number in range(asked.repeats):
        for name, other in (("itself", load), ("slowed", load_slowed)):
            versus = time_versus(load, other, frames, blocks=asked.blocks, rounds=asked.rounds)
            found[name].append(asdict(versus) | {"cpu_side": versus.frame_cpu.side(), "wall_side": versus.frame.side()})
            said = "; ".join(
                f"{clock} {of.median:.3f} ({of.low or 0:.3f} to {of.high or 0:.3f})"
                for clock, of in (("cpu", versus.frame_cpu), ("wall", versus.frame))
            )
            print(f"{number + 1} {name}: {said}", flush=True)
    others = (read_busy()[0] - busy_s - read_own() + own_s) / (time.monotonic() - since_s)
    print(f"other processes used {others:.2f} cores on average")
    for clock in ("cpu", "wall"):
        held = sum(one[f"{clock}_side"] == 0 for one in found["itself"])
        detected = sum(one[f"{clock}_side"] == 1 for one in found["slowed"])
        print(
            f"{clock}: held 1 in {held} of {asked.repeats} against itself; found a slowdown of {asked.slowdown:.0%} in "
            f"{detected} of {asked.repeats}"
        )
    if asked.json is not None:
        asked.json.write_text(json.dumps(found | {"others_cores": others}))


if __name__ == "__main__":
    main()
