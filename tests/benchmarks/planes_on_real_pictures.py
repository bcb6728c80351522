"""Try a run of `edgefetal train multitask-unet` on real standard planes: a table and a picture, good or bad.

    python tests/benchmarks/planes_on_real_pictures.py RUN --data KIND:PATH [--data ...] --out planes.png

`--data` as in training: what the run did not see of it is judged first. Then come the four pictures of pretus and the
thirteen of SonoNet, read from ../shared/data beside the checkout. pretus was measured by hand; SonoNet's pictures have
no pixel size, so only planes and outlines can be judged there.
"""

from __future__ import annotations

import argparse
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import torch

from edgefetal_calibration.datasets.kinds import read_exams
from edgefetal_calibration.datasets.split import Part
from edgefetal_export.teachers.multitask_unet import MultitaskUnet
from edgefetal_export.training import run as run_folder
from edgefetal_export.training.biometry.frames import TrainingFrame, drawn_frames, load_frames
from edgefetal_export.training.biometry.multitask import MultitaskRecipe
from edgefetal_runtime.biometry.field import fan_field
from edgefetal_runtime.biometry.measurement import Abstained
from edgefetal_runtime.biometry.principal import PRINCIPAL, find_structure, principal_length
from edgefetal_runtime.infer.bundle import NO_PLANE
from edgefetal_runtime.infer.preprocess import preprocess
from edgefetal_runtime.scale import NoScale
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from edgefetal_runtime.scale import Scale

DATA = Path(__file__).parents[3] / "shared" / "data"
# Length measured by hand in mm, from the data's own README; the head along the middle of the skull.
PRETUS = {
    "1558092496062": ("head", 192.0),
    "1558092754103": ("none", None),
    "1558092927832": ("abdomen", 163.0),
    "1558092947471": ("femur", 38.7),
}
SONONET = {"ABDOMINAL": "abdomen", "BRAIN-CB": "head", "BRAIN-TV": "head", "FEMUR": "femur"}
# Where the fan lies in SonoNet's pictures.
FAN = slice(115, 734), slice(81, 874)
TILE = (400, 300)


@dataclass(frozen=True, eq=False)
class Picture:
    """A real picture with what is known of it."""

    name: str
    pixels: npt.NDArray[np.uint8]
    plane: str
    scale: Scale | NoScale
    by_hand_mm: float | None = None


@dataclass(frozen=True, eq=False)
class Answer:
    """What the network says of a picture."""

    plane: str
    probability: float
    length: float | None
    reason: str
    contour_px: npt.NDArray[np.float64] | None


def real_pictures() -> Iterator[Picture]:
    """Read the real pictures."""
    for path in sorted((DATA / "pretus").glob("*.mhd")):
        plane, by_hand_mm = next(known for stamp, known in PRETUS.items() if stamp in path.name)
        frame = next(open_metaimage(path).frames())
        yield Picture(f"pretus {plane}", frame.pixels, plane, frame.scale, by_hand_mm)
    for path in sorted((DATA / "sononet" / "example_images").glob("*.png")):
        pixels = np.ascontiguousarray(read_grey(path)[FAN])
        yield Picture(f"SonoNet {path.stem}", pixels, SONONET.get(path.stem, NO_PLANE), NoScale("not known"))


def load_network(run: Path) -> tuple[MultitaskRecipe, MultitaskUnet]:
    """Load the run's best weights, finished or not."""
    recipe = run_folder.read_recipe(run, MultitaskRecipe)
    network = MultitaskUnet(recipe.network).eval()
    state = run_folder.load_checkpoint(run)
    assert state is not None, f"{run} has no checkpoint"
    network.load_state_dict(state["best_weights"])
    return recipe, network


def ask(recipe: MultitaskRecipe, network: MultitaskUnet, picture: Picture) -> Answer:
    """Name the plane and measure the structure that the picture should show, or else the one that was named."""
    image, box = preprocess(picture.pixels, recipe.preprocess)
    with torch.inference_mode():
        masks, planes = network(torch.from_numpy(image))
    probabilities = torch.softmax(planes[0], 0)
    best = int(probabilities.argmax())
    named = recipe.network.planes[best]
    structure = picture.plane if picture.plane != NO_PLANE else named
    if structure == NO_PLANE:
        return Answer(named, float(probabilities[best]), None, "", None)
    logits = masks[0, recipe.network.structures.index(structure)].numpy()
    field = fan_field(image[0, 0], recipe.preprocess, box)
    found = find_structure(structure, logits, box, picture.scale, field)
    if isinstance(found, Abstained):
        return Answer(named, float(probabilities[best]), None, found.reason, None)
    length = principal_length(found, structure)
    value = None if isinstance(length, Abstained) else length.value
    reason = length.reason if isinstance(length, Abstained) else ""
    return Answer(named, float(probabilities[best]), value, reason, found.contour_px)


def draw(picture: Picture, answer: Answer) -> npt.NDArray[np.uint8]:
    """Draw a picture with its outline and what the network calls it."""
    shown = cv2.cvtColor(picture.pixels, cv2.COLOR_GRAY2BGR)
    if answer.contour_px is not None:
        points = np.round(answer.contour_px).astype(np.int32)[None]
        cv2.polylines(shown, list(points), picture.plane != "femur", (0, 255, 0), 2, cv2.LINE_AA)
    ratio = min(TILE[0] / shown.shape[1], TILE[1] / shown.shape[0])
    small = cv2.resize(shown, None, fx=ratio, fy=ratio, interpolation=cv2.INTER_AREA)
    tile = np.zeros((TILE[1] + 22, TILE[0], 3), np.uint8)
    tile[22 : 22 + small.shape[0], : small.shape[1]] = small
    colour = (120, 255, 120) if answer.plane == picture.plane else (120, 160, 255)
    text = f"{picture.name}: {answer.plane} {answer.probability:.2f}"
    if answer.length is not None and not isinstance(picture.scale, NoScale):
        text += f", {answer.length:.1f} mm"
    cv2.putText(tile, text, (4, 16), cv2.FONT_HERSHEY_SIMPLEX, 0.45, colour, 1, cv2.LINE_AA)
    return np.asarray(tile, np.uint8)


def judge_held_out(recipe: MultitaskRecipe, network: MultitaskUnet, run: Path, data: Sequence[str]) -> None:
    """Print what the run makes of the subjects that it has not seen."""
    split = run_folder.read_split(run)
    exams = [exam for text in data for exam in read_exams(text)[1]]
    frames = drawn_frames(load_frames(split.select(exams, Part.HELD_OUT), lambda: None), 4, (recipe.seed, 0))
    planes: Counter[tuple[str, str]] = Counter()
    errors: dict[str, list[float | None]] = {}
    for frame in frames:
        answer = ask(recipe, network, picture_of(frame))
        source = "drawn" if frame.outline_px is None else "HC18"
        planes[frame.plane, answer.plane] += 1
        if frame.length_mm is not None:
            error = None if answer.length is None else answer.length - frame.length_mm
            errors.setdefault(f"{PRINCIPAL[frame.plane].name} {source}", []).append(error)
    print(f"held out: {len(frames)} frames, planes named rightly {sum(n for (a, b), n in planes.items() if a == b)}")
    for (true, named), count in sorted(planes.items()):
        print(f"  {true:8} taken for {named:8} {count}")
    for name, of_name in sorted(errors.items()):
        some = np.array([error for error in of_name if error is not None])
        figures = f"MAE {np.abs(some).mean():.2f} mm, bias {some.mean():+.2f} mm" if some.size else "none"
        print(f"  {name}: {some.size} of {len(of_name)} measured, {figures}")


def picture_of(frame: TrainingFrame) -> Picture:
    """Take a labelled frame for a picture."""
    return Picture("", frame.pixels, frame.plane, frame.scale or NoScale("not known"))


def main() -> None:
    """Judge a run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("--data", action="append", default=[])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    recipe, network = load_network(arguments.run)
    judge_held_out(recipe, network, arguments.run, arguments.data)
    tiles, right = [], 0
    for picture in real_pictures():
        answer = ask(recipe, network, picture)
        right += answer.plane == picture.plane
        tiles.append(draw(picture, answer))
        hand = "" if picture.by_hand_mm is None else f", by hand {picture.by_hand_mm:g} mm"
        size = "" if answer.length is None or isinstance(picture.scale, NoScale) else f", {answer.length:.1f} mm"
        print(f"{picture.name}: taken for {answer.plane} ({answer.probability:.2f}){size}{hand} {answer.reason}")
    print(f"real pictures: {right} of {len(tiles)} planes named rightly")
    tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % 5)
    rows = [np.hstack(tiles[first : first + 5]) for first in range(0, len(tiles), 5)]
    assert cv2.imwrite(str(arguments.out), np.vstack(rows)), f"{arguments.out} cannot be written"


if __name__ == "__main__":
    main()
