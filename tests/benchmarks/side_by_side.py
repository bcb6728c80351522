"""Simulated standard planes in one picture, and beside real ones in another.

    python tests/benchmarks/side_by_side.py docs/phantom-side-by-side.png
    python tests/benchmarks/side_by_side.py /tmp/with-real.png --real ../shared/data

The first draws simulated pictures only, by age from left to right: it is the one in the docs. The second puts HC18, a
real volume and `pretus` beside them, all at the same millimetres; it is refused inside the repository, because no real
picture is committed.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_calibration.datasets.hc18 import read_hc18
from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.probe import Fan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.volume import read_volume, reslice, row_plane
from edgefetal_calibration.phantom.writers import write_png
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    Grey = npt.NDArray[np.uint8]

WEEKS = (20.0, 26.0, 32.0)
SEED = 3
NAMES = {Protocol.HEAD: "head", Protocol.ABDOMEN: "abdomen", Protocol.FEMUR: "femur"}
TILE_PX = (420, 350)
MM_PER_PX = 0.6
TITLE_PX = 22
# Where pretus has its head, heart, abdomen and femur, by the time in the files' names.
PRETUS_MM = {"496062": "head", "754103": "heart", "927832": "abdomen", "947471": "femur"}


def simulated_plane(protocol: Protocol, weeks: float) -> tuple[Grey, float]:
    """The frame of an expert's exam that is nearest to the standard plane, and the size of its pixels."""
    for number in range(20):
        exam = Exam(ExamPlan(protocol, weeks, seed=SEED, number=number, skill=1.0))
        truths = [exam.truth(s, k) for s, path in enumerate(exam.planes) for k in range(len(path))]
        best = max(truths, key=lambda t: (t.plane is protocol.target, t.quality))
        if best.plane is protocol.target:
            return exam.frame(best.sweep, best.index).picture, exam.probe_and_fan[1].x_mm_per_px
    message = f"No exam of 20 at {weeks} weeks shows the {NAMES[protocol]}."
    raise RuntimeError(message)


def tile(picture: Grey, mm_per_px: float, title: str) -> Grey:
    """A picture about its middle at `MM_PER_PX`, under its title."""
    width, height = TILE_PX
    share = mm_per_px / MM_PER_PX
    way = cv2.INTER_AREA if share < 1 else cv2.INTER_LINEAR
    sized = cv2.resize(picture, None, fx=share, fy=share, interpolation=way)
    shift = np.array([[1.0, 0.0, (width - sized.shape[1]) // 2], [0.0, 1.0, (height - sized.shape[0]) // 2]])
    shown = cv2.warpAffine(sized, shift, TILE_PX, flags=cv2.INTER_NEAREST)
    head = np.zeros((TITLE_PX, width), np.uint8)
    cv2.putText(head, title, (6, TITLE_PX - 7), cv2.FONT_HERSHEY_SIMPLEX, 0.45, (255,), 1, cv2.LINE_AA)
    return np.vstack([head, shown])


def real_tiles(root: Path) -> dict[Protocol, list[Grey]]:
    """Real pictures of each plane, two at the most."""
    cases = sorted(read_hc18(root / "hc18"), key=lambda case: case.hc_mm)
    heads = [cases[len(cases) // 2], cases[-len(cases) // 10]]
    tiles = {
        Protocol.HEAD: [tile(read_grey(c.picture), c.scale.x_mm_per_px, f"HC18, HC {c.hc_mm:.0f} mm") for c in heads],
        Protocol.ABDOMEN: [],
        Protocol.FEMUR: [],
    }
    for protocol, name in NAMES.items():
        stamp = next(stamp for stamp, shown in PRETUS_MM.items() if shown == name)
        (path,) = (root / "pretus").glob(f"*{stamp}*.mhd")
        frame = next(iter(open_metaimage(path).frames()))
        tiles[protocol].append(tile(frame.pixels, frame.scale.x_mm_per_px, f"pretus, {name}"))
    volume = read_volume(root / "fetal_head_volume" / "fetal_head_3DUS.mha")
    height, _, width = volume.voxels.shape
    fan = Fan(2 * width, 2 * height, 0.25, 0.25, width - 0.5, 0.0)
    tiles[Protocol.HEAD].append(tile(reslice(volume, row_plane(volume, 112), fan), 0.25, "volume, row 112"))
    return tiles


def montage(rows: Sequence[Sequence[Grey]]) -> Grey:
    """Rows of tiles, filled up with black."""
    most = max(len(row) for row in rows)
    blank = np.zeros((TILE_PX[1] + TITLE_PX, TILE_PX[0]), np.uint8)
    return np.vstack([np.hstack([*row, *[blank] * (most - len(row))]) for row in rows])


def main() -> None:
    """Draw the picture that the arguments ask for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--real", type=Path)
    arguments = parser.parse_args()
    repository = Path(__file__).resolve().parents[2]
    if arguments.real and arguments.out.resolve().is_relative_to(repository):
        sys.exit(f"{arguments.out} would put real pictures into the repository; write it elsewhere.")
    rows = {
        protocol: [tile(*simulated_plane(protocol, weeks), f"simulated {name}, {weeks:.0f} weeks") for weeks in WEEKS]
        for protocol, name in NAMES.items()
    }
    if arguments.real:
        for protocol, tiles in real_tiles(arguments.real).items():
            rows[protocol] += tiles
    write_png(montage(list(rows.values())), arguments.out)
    print(f"{arguments.out}: {len(rows)} rows at {MM_PER_PX} mm per pixel")


if __name__ == "__main__":
    main()
