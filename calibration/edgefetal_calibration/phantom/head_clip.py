"""A simulated probe sweep through a fetal head whose circumference is known.

This is a simple drawing for the demo and for tests of the plumbing. It is not a physics-grade simulator, and no
accuracy may be claimed from it: it shows that a head of known size comes out of the pipeline at about that size.

How a frame is made:
1. The head is an ellipsoid and the frame a plane through it, so the skull is an ellipse that grows and shrinks.
2. On a grid of beams and depths every tissue has an echo level; that level times a complex random field, blurred by
   the pulse and the beam, is speckle. A constant blur in beam angle is a beam that widens with depth.
3. The skull and the thin membranes in the brain are mirrors: bright where the beam meets them square, weak where it
   grazes. Bone on the way takes its toll from everything behind it.
4. The envelope is log-compressed and bent into the fan.

Levels are written as the grey (0 to 255) that they have in the finished picture. They, the wall's thickness and where
the outline runs on it were matched by eye and by radial profiles to 72 pictures of the HC18 training set (van den
Heuvel et al., 2018).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from edgefetal_devices.errors import InputError, OutputError
from edgefetal_runtime.biometry.ellipse import Ellipse

if TYPE_CHECKING:
    from pathlib import Path

Field = npt.NDArray[np.float32]

MIN_HC_MM: Final = 60.0
MAX_HC_MM: Final = 380.0
MIN_FRAME_COUNT: Final = 3
_MIN_SIDE_PX: Final = 64
_MM_PER_PX_RANGE: Final = (0.02, 2.0)
_CEPHALIC_INDEX_RANGE: Final = (0.6, 1.0)
_FRAMES_PER_S: Final = 20.0

# The probe: a usual abdominal curved array.
_PROBE_RADIUS_MM: Final = 50.0
_HALF_ANGLE_RAD: Final = math.radians(35.0)
_BEAM_COUNT: Final = 288
_SAMPLE_MM_RANGE: Final = (0.15, 0.3)
# Where the middle of the probe's face and the deepest echo lie, as shares of the picture's height.
_FACE_AT: Final = 0.035
_DEEPEST_AT: Final = 0.985
# Room that the outline keeps from the fan's and the picture's edges.
_MARGIN_MM: Final = 2.0

_DYNAMIC_RANGE_DB: Final = 60.0
_LOOKS: Final = 3
_SMOOTHING_SIGMA: Final = 0.8
_PULSE_SIGMA_MM: Final = 0.28
_BEAM_SIGMA: Final = 2.2
_BLUR_RADIUS_BEAMS: Final = 7

# The sweep runs from beyond one pole of the head to beyond the other, in units of the ellipsoid's semi-axis across the
# pictures. The power makes the hand slow down at the standard plane: a quarter of the frames lie within 1 % of it.
_SWEEP_REACH: Final = 1.35
_SWEEP_EASE: Final = 1.8
_HEIGHT_TO_LENGTH: Final = 0.85
_DRIFT_MM: Final = 1.5
_SPECKLE_LENGTH_MM: Final = 2.5
_SPECKLE_KEPT_AT_REST: Final = 0.97

# The skull's echo is a bell across the wall; a bell is steepest one sigma from its crest. HC18's readers put their
# outline about 0.2 mm inside the steepest outer point, and a network learns that from them, so the true outline lies
# inside of it here too, by less.
_WALL_OUTER_SIGMA_MM: Final = 1.15
_WALL_INNER_SIGMA_MM: Final = 1.4
_WALL_STEEPEST_MM: Final = 0.15
_WALL_GREY: Final = 208.0
_WALL_GRAZING_GREY: Final = 54.0
_WALL_ROUGH_SHARE: Final = 0.3
_BONE_DB_PER_MM: Final = 0.4
_BONE_MAX_DB: Final = 14.0

_BRAIN_GREY: Final = 28.0
_HAZE_GREY: Final = 30.0
_TISSUE_GREY: Final = 78.0
_FLUID_GREY: Final = 8.0
# Two joints of the skull bones, as directions from the middle of the head (along, across), where the wall is faint.
_SUTURES: Final = ((0.72, -0.69), (-0.80, 0.60))
_SUTURE_SHARPNESS: Final = 260.0


@dataclass(frozen=True, eq=False)
class HeadClip:
    """A sweep with its truth.

    Args:
        frames: shape (T, H, W), uint8.
        frames_per_s: frame rate.
        mm_per_px: size of a pixel, the same in x and y.
        hc_mm: true head circumference at the standard plane: outer edge of the skull, Ramanujan's second approximation.
        standard_plane_index: the frame nearest the true plane.
    """

    frames: npt.NDArray[np.uint8]
    frames_per_s: float
    mm_per_px: float
    hc_mm: float
    standard_plane_index: int


class _Blob(NamedTuple):
    """A structure in the brain: an ellipsoid of one echo level.

    Positions and radii are shares of the head's semi-axes: along (towards the forehead), across (away from the probe)
    and height (along the sweep).
    """

    along: float
    across: float
    height: float
    radius_along: float
    radius_across: float
    radius_height: float
    grey: float


class _Membrane(NamedTuple):
    """A thin mirror in the brain: a straight line in the picture, in shares of the semi-axes, fading with height."""

    along_0: float
    across_0: float
    along_1: float
    across_1: float
    radius_height: float
    grey: float


_BLOBS: Final = (
    _Blob(0.02, -0.17, 0.0, 0.24, 0.15, 0.40, 20.0),  # thalami
    _Blob(0.02, 0.17, 0.0, 0.24, 0.15, 0.40, 18.0),
    _Blob(0.42, 0.0, 0.0, 0.12, 0.06, 0.22, 4.0),  # cavum septi pellucidi
    _Blob(-0.42, 0.40, 0.15, 0.30, 0.17, 0.45, 10.0),  # lateral ventricle away from the probe
    _Blob(-0.36, 0.42, 0.20, 0.17, 0.13, 0.35, 92.0),  # and its choroid plexus
    _Blob(0.45, 0.30, 0.15, 0.26, 0.08, 0.40, 12.0),
    _Blob(0.05, 0.80, 0.0, 0.50, 0.09, 0.60, 12.0),  # fluid over the insula
    _Blob(-0.30, -0.05, 0.0, 0.16, 0.10, 0.30, 62.0),  # brain stem and cisterns
)
_MEMBRANES: Final = (
    _Membrane(-0.88, 0.01, -0.55, -0.01, 0.8, 92.0),  # falx, and the clefts that carry it on
    _Membrane(-0.20, 0.0, -0.06, 0.01, 0.5, 118.0),
    _Membrane(0.04, -0.01, 0.22, 0.0, 0.5, 132.0),
    _Membrane(0.60, 0.0, 0.92, 0.01, 0.8, 108.0),
    _Membrane(0.32, -0.065, 0.53, -0.065, 0.25, 150.0),  # walls of the cavum
    _Membrane(0.32, 0.065, 0.53, 0.065, 0.25, 150.0),
    _Membrane(0.30, 0.36, 0.58, 0.31, 0.4, 135.0),  # walls of the ventricles
    _Membrane(-0.66, 0.23, -0.44, 0.27, 0.4, 105.0),
    _Membrane(0.28, -0.34, 0.55, -0.30, 0.4, 62.0),
    _Membrane(-0.14, 0.68, 0.14, 0.70, 0.5, 90.0),  # insula
    _Membrane(-0.55, 0.60, -0.34, 0.57, 0.5, 80.0),
)


@dataclass(frozen=True, eq=False)
class _Beams:
    """The grid of depths (rows) and beams (columns) and its way into the picture.

    Args:
        x_mm: place of each sample in the picture, rightwards from its middle column, shape (R, B).
        y_mm: the same downwards from its top row, shape (R, B).
        towards_x: x of the unit vector along each beam, shape (1, B).
        towards_y: y of it, shape (1, B).
        depth: each row's depth as a share of the deepest, shape (R, 1).
        sample_mm: distance between rows.
        to_beam: the beam under each pixel, shape (H, W).
        to_sample: the row under each pixel, shape (H, W).
    """

    x_mm: Field
    y_mm: Field
    towards_x: Field
    towards_y: Field
    depth: Field
    sample_mm: float
    to_beam: Field
    to_sample: Field


@dataclass(frozen=True, eq=False)
class _Surroundings:
    """What lies around the head: coarse random fields, each a stack along the sweep of shape (Z, rows, columns)."""

    patches: Field
    lumps: Field
    layers: Field
    grain: Field


@dataclass(frozen=True)
class _Section:
    """One plane of the sweep through the head.

    Args:
        full: the head's outline at the standard plane, moved to where the head is now, in millimetres.
        height: the plane's distance from the standard plane over the ellipsoid's semi-axis; beyond 1 it misses.
        forehead: 1.0 where the forehead is to the right, else -1.0.
    """

    full: Ellipse
    height: float
    forehead: float

    @property
    def shrink(self) -> float:
        """Size of this section over that of the standard plane; 0 where the plane misses the head."""
        return math.sqrt(max(0.0, 1.0 - self.height**2))


def simulate_head_clip(
    *,
    hc_mm: float,
    seed: int,
    frame_count: int = 60,
    height_px: int = 540,
    width_px: int = 800,
    mm_per_px: float = 0.18,
    cephalic_index: float = 0.79,
    tilt_rad: float = 0.06,
) -> HeadClip:
    """Draw a short sweep: tissue, the head growing to its largest section, and tissue again.

    Args:
        hc_mm: head circumference at the largest section, 60 to 380.
        seed: chooses the speckle, the surroundings, the side of the forehead and the drift; the same seed draws the
            same bytes.
        frame_count: at least 3.
        height_px: picture height.
        width_px: picture width.
        mm_per_px: size of a pixel.
        cephalic_index: the head's width over its length, 0.6 to 1.
        tilt_rad: direction of the head's length, from x towards y.

    Raises:
        InputError: a value is out of range, or the head does not fit into the picture.
    """
    if frame_count < MIN_FRAME_COUNT:
        raise InputError(f"A sweep of {frame_count} frames is too short; ask for at least {MIN_FRAME_COUNT}.")
    if seed < 0:
        raise InputError(f"The seed {seed} is negative; give 0 or a positive whole number.")
    outline_px = standard_plane_outline_px(
        hc_mm=hc_mm,
        height_px=height_px,
        width_px=width_px,
        mm_per_px=mm_per_px,
        cephalic_index=cephalic_index,
        tilt_rad=tilt_rad,
    )
    outline_mm = _outline_mm(outline_px, width_px, mm_per_px)
    rng = np.random.default_rng(seed)
    beams = _beams(height_px, width_px, mm_per_px)
    plane = round(float(rng.uniform(0.47, 0.56)) * (frame_count - 1))
    heights = _heights(frame_count, plane)
    forehead = float(rng.choice((-1.0, 1.0)))
    drift_mm = rng.uniform(-_DRIFT_MM, _DRIFT_MM, size=2)
    semi_height_mm = _HEIGHT_TO_LENGTH * outline_mm.semi_major
    surroundings = _surroundings(rng)

    frames = np.empty((frame_count, height_px, width_px), dtype=np.uint8)
    scatterers = _fresh_scatterers(rng, beams)
    for index, height in enumerate(heights):
        if index:
            moved_mm = abs(height - heights[index - 1]) * semi_height_mm
            kept = _SPECKLE_KEPT_AT_REST * math.exp(-moved_mm / _SPECKLE_LENGTH_MM)
            scatterers *= np.float32(kept)
            scatterers += np.float32(math.sqrt(1.0 - kept**2)) * _fresh_scatterers(rng, beams)
        # No drift at the plane itself, so that the outline there is where it was promised.
        away = (index - plane) / frame_count
        moved = Ellipse(
            outline_mm.center_x + 2.0 * away * float(drift_mm[0]),
            outline_mm.center_y + 2.0 * away * float(drift_mm[1]),
            outline_mm.semi_major,
            outline_mm.semi_minor,
            outline_mm.angle_rad,
        )
        frames[index] = _frame(_Section(moved, float(height), forehead), beams, surroundings, scatterers)
    return HeadClip(
        frames=frames,
        frames_per_s=_FRAMES_PER_S,
        mm_per_px=mm_per_px,
        hc_mm=hc_mm,
        standard_plane_index=plane,
    )


def standard_plane_outline_px(
    *,
    hc_mm: float,
    height_px: int = 540,
    width_px: int = 800,
    mm_per_px: float = 0.18,
    cephalic_index: float = 0.79,
    tilt_rad: float = 0.06,
) -> Ellipse:
    """Return the skull's true outer edge in the standard plane of `simulate_head_clip`, in pixels.

    Raises:
        InputError: a value is out of range, or the head does not fit into the picture.
    """
    _check(
        hc_mm=hc_mm,
        height_px=height_px,
        width_px=width_px,
        mm_per_px=mm_per_px,
        cephalic_index=cephalic_index,
        tilt_rad=tilt_rad,
    )
    # The circumference is linear in the size, so the unit head gives the scale.
    semi_major_mm = hc_mm / Ellipse(0.0, 0.0, 1.0, cephalic_index, 0.0).circumference()
    center_y_mm = 0.5 * (_FACE_AT + _DEEPEST_AT) * height_px * mm_per_px
    outline = Ellipse(
        (width_px - 1) / 2.0,
        center_y_mm / mm_per_px,
        semi_major_mm / mm_per_px,
        cephalic_index * semi_major_mm / mm_per_px,
        tilt_rad % math.pi,
    )
    if not _fits(_outline_mm(outline, width_px, mm_per_px), height_px * mm_per_px, width_px * mm_per_px):
        raise InputError(
            f"A head of {hc_mm:g} mm does not fit into {width_px} x {height_px} pixels of {mm_per_px:g} mm; "
            "give a larger mm_per_px, a larger picture or a smaller head."
        )
    return outline


def write_clip(clip: HeadClip, path: Path) -> None:
    """Write the frames as a lossless grey video: FFV1 in an AVI file, which OpenCV reads back bit for bit.

    Args:
        clip: what to write.
        path: a file name that ends in `.avi`, in a folder that exists.

    Raises:
        OutputError: the name, the folder or the video writer does not allow it.
    """
    if path.suffix.lower() != ".avi":
        raise OutputError(f"{path} does not end in .avi; the clip is written as AVI, so name it so.")
    if not path.parent.is_dir():
        raise OutputError(f"The folder {path.parent} does not exist; create it first.")
    height_px, width_px = clip.frames.shape[1:]
    ffv1 = cv2.VideoWriter.fourcc(*"FFV1")
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, ffv1, clip.frames_per_s, (width_px, height_px), isColor=False)
    try:
        if not writer.isOpened():
            raise OutputError(
                f"OpenCV cannot write an FFV1 video to {path}; check that the folder is writable and that "
                "opencv-python-headless is the installed OpenCV."
            )
        for frame in clip.frames:
            writer.write(frame)
    finally:
        writer.release()


def _check(
    *, hc_mm: float, height_px: int, width_px: int, mm_per_px: float, cephalic_index: float, tilt_rad: float
) -> None:
    # Written so that NaN fails every comparison and is refused.
    if not MIN_HC_MM <= hc_mm <= MAX_HC_MM:
        raise InputError(f"A head circumference of {hc_mm:g} mm is no fetus's; give {MIN_HC_MM:g} to {MAX_HC_MM:g}.")
    if min(height_px, width_px) < _MIN_SIDE_PX:
        raise InputError(
            f"A picture of {width_px} x {height_px} pixels is too small; give at least {_MIN_SIDE_PX} each way."
        )
    low, high = _MM_PER_PX_RANGE
    if not low <= mm_per_px <= high:
        raise InputError(f"A pixel of {mm_per_px:g} mm is not an ultrasound picture's; give {low:g} to {high:g}.")
    low, high = _CEPHALIC_INDEX_RANGE
    if not low <= cephalic_index <= high:
        raise InputError(f"A cephalic index of {cephalic_index:g} is no head's; give {low:g} to {high:g}.")
    if not math.isfinite(tilt_rad):
        raise InputError(f"A tilt of {tilt_rad} is not an angle; give radians.")


def _outline_mm(outline_px: Ellipse, width_px: int, mm_per_px: float) -> Ellipse:
    """Return a pixel ellipse in the millimetres of `_Beams`: x from the middle column, y from the top row."""
    return Ellipse(
        (outline_px.center_x - (width_px - 1) / 2.0) * mm_per_px,
        outline_px.center_y * mm_per_px,
        outline_px.semi_major * mm_per_px,
        outline_px.semi_minor * mm_per_px,
        outline_px.angle_rad,
    )


def _fits(outline_mm: Ellipse, height_mm: float, width_mm: float) -> bool:
    points = outline_mm.grown(_MARGIN_MM).points(360)
    x, y = points[:, 0], points[:, 1]
    from_apex_y = y - (_FACE_AT * height_mm - _PROBE_RADIUS_MM)
    depth_mm = np.hypot(x, from_apex_y) - _PROBE_RADIUS_MM
    in_fan = (np.abs(np.arctan2(x, from_apex_y)) < _HALF_ANGLE_RAD) & (depth_mm > 0)
    in_fan &= depth_mm < (_DEEPEST_AT - _FACE_AT) * height_mm
    return bool((in_fan & (np.abs(x) < width_mm / 2.0)).all())


def _beams(height_px: int, width_px: int, mm_per_px: float) -> _Beams:
    face_mm = _FACE_AT * height_px * mm_per_px
    apex_mm = face_mm - _PROBE_RADIUS_MM
    deepest_mm = (_DEEPEST_AT - _FACE_AT) * height_px * mm_per_px
    sample_mm = min(max(mm_per_px, _SAMPLE_MM_RANGE[0]), _SAMPLE_MM_RANGE[1])
    depth_mm = np.arange(math.ceil(deepest_mm / sample_mm) + 1)[:, None] * sample_mm
    angle_rad = np.linspace(-_HALF_ANGLE_RAD, _HALF_ANGLE_RAD, _BEAM_COUNT)[None, :]
    range_mm = depth_mm + _PROBE_RADIUS_MM

    x_mm = ((np.arange(width_px) - (width_px - 1) / 2.0) * mm_per_px)[None, :]
    y_mm = (np.arange(height_px) * mm_per_px - apex_mm)[:, None]
    to_sample = (np.hypot(x_mm, y_mm) - _PROBE_RADIUS_MM) / sample_mm
    to_beam = (np.arctan2(x_mm, y_mm) / _HALF_ANGLE_RAD + 1.0) * (_BEAM_COUNT - 1) / 2.0
    return _Beams(
        x_mm=(range_mm * np.sin(angle_rad)).astype(np.float32),
        y_mm=(range_mm * np.cos(angle_rad) + apex_mm).astype(np.float32),
        towards_x=np.sin(angle_rad).astype(np.float32),
        towards_y=np.cos(angle_rad).astype(np.float32),
        depth=(depth_mm / depth_mm[-1]).astype(np.float32),
        sample_mm=sample_mm,
        to_beam=to_beam.astype(np.float32),
        to_sample=to_sample.astype(np.float32),
    )


def _heights(frame_count: int, plane: int) -> npt.NDArray[np.float64]:
    """Height of each frame's plane, shape (T,): from -reach to reach, slow around 0, which is frame `plane`."""
    from_plane = np.arange(frame_count) - plane
    step = np.where(from_plane < 0, from_plane / plane, from_plane / (frame_count - 1 - plane))
    return np.asarray(_SWEEP_REACH * np.sign(step) * np.abs(step) ** _SWEEP_EASE, dtype=np.float64)


def _surroundings(rng: np.random.Generator) -> _Surroundings:
    return _Surroundings(
        patches=rng.standard_normal((6, 6, 5), dtype=np.float32),
        lumps=rng.standard_normal((12, 20, 16), dtype=np.float32),
        layers=rng.standard_normal((8, 80, 5), dtype=np.float32),
        grain=rng.standard_normal((24, 70, 40), dtype=np.float32),
    )


def _fresh_scatterers(rng: np.random.Generator, beams: _Beams) -> Field:
    """White noise, shape (R, B, real and imaginary part of each look)."""
    return rng.standard_normal((*beams.x_mm.shape, 2 * _LOOKS), dtype=np.float32)


def _frame(section: _Section, beams: _Beams, surroundings: _Surroundings, scatterers: Field) -> npt.NDArray[np.uint8]:
    """One picture, shape (H, W)."""
    slices = _Surroundings(
        *(
            _slice(stack, section.height, beams)
            for stack in (surroundings.patches, surroundings.lumps, surroundings.layers, surroundings.grain)
        )
    )
    grey = _tissue_grey(beams, slices)
    mirror_grey = np.zeros_like(grey)
    if section.shrink > 0:
        grey, mirror_grey = _with_head(grey, section, beams, slices)
    mirror = _amplitude(mirror_grey)
    rough = np.sqrt(_amplitude(grey) ** 2 + (_WALL_ROUGH_SHARE * mirror) ** 2)
    power = np.zeros_like(grey)
    speckle = _point_spread(scatterers * rough[:, :, None], beams)
    for look in range(_LOOKS):
        power += (speckle[:, :, 2 * look] + mirror) ** 2 + speckle[:, :, 2 * look + 1] ** 2
    level_db = 10.0 * np.log10(power / _LOOKS + np.float32(1e-9))
    picture = np.clip(255.0 * (1.0 + level_db / _DYNAMIC_RANGE_DB), 0.0, 255.0).astype(np.float32)
    # Scanners smooth the compressed picture a little; without it the speckle has blacker holes than theirs.
    smooth = cv2.GaussianBlur(picture, (0, 0), _SMOOTHING_SIGMA)
    fan = cv2.remap(
        smooth, beams.to_beam, beams.to_sample, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0
    )
    return np.rint(fan).astype(np.uint8)


def _amplitude(grey: Field) -> Field:
    """Echo amplitude that log compression turns into this grey, 1 for 255."""
    nepers = (grey / 255.0 - 1.0) * (_DYNAMIC_RANGE_DB / 20.0 * math.log(10.0))
    return np.asarray(np.exp(nepers), dtype=np.float32)


def _point_spread(echoes: Field, beams: _Beams) -> Field:
    """Blur by the pulse (down the rows) and the beam (across them), keeping the mean power of white noise."""
    sigma = _PULSE_SIGMA_MM / beams.sample_mm
    pulse = np.asarray(cv2.getGaussianKernel(2 * math.ceil(3.0 * sigma) + 1, sigma), dtype=np.float64)
    beam = np.asarray(cv2.getGaussianKernel(2 * _BLUR_RADIUS_BEAMS + 1, _BEAM_SIGMA), dtype=np.float64)
    # Each look is a complex number of two unit normals, hence the 2.
    pulse /= math.sqrt(float((pulse**2).sum()))
    beam /= math.sqrt(2.0 * float((beam**2).sum()))
    return np.asarray(cv2.sepFilter2D(echoes, cv2.CV_32F, beam, pulse), dtype=np.float32)


def _slice(stack: Field, height: float, beams: _Beams) -> Field:
    """The random field of a stack in the plane at this height, stretched over the beams, shape (R, B)."""
    at = (height / _SWEEP_REACH + 1.0) / 2.0 * (len(stack) - 1)
    below = min(int(at), len(stack) - 2)
    share = at - below
    # Weights on a circle keep the spread of the mixture that of either slice.
    mixed = math.cos(share * math.pi / 2.0) * stack[below] + math.sin(share * math.pi / 2.0) * stack[below + 1]
    rows, columns = beams.x_mm.shape
    return np.asarray(cv2.resize(mixed, (columns, rows), interpolation=cv2.INTER_CUBIC), dtype=np.float32)


def _tissue_grey(beams: _Beams, slices: _Surroundings) -> Field:
    """Grey of the mother's tissue, as if no head were there, shape (R, B)."""
    near = np.exp(-((beams.depth / 0.11) ** 2))
    edge = np.abs(np.linspace(-1.0, 1.0, beams.x_mm.shape[1], dtype=np.float32))[None, :]
    grey = _TISSUE_GREY + 24.0 * slices.patches + 8.0 * slices.lumps + 5.0 * slices.grain
    grey += (7.0 + 24.0 * near) * slices.layers + 10.0 * near + 12.0 * np.maximum(slices.lumps, 0.0)
    grey -= 22.0 * edge**4 + 22.0 * beams.depth**2
    return np.asarray(np.maximum(grey, _FLUID_GREY), dtype=np.float32)


def _with_head(tissue_grey: Field, section: _Section, beams: _Beams, slices: _Surroundings) -> tuple[Field, Field]:
    """Put the head into the tissue.

    Returns:
        Grey of what scatters and grey of what mirrors, each of shape (R, B).
    """
    full, shrink = section.full, section.shrink
    cos, sin = np.float32(math.cos(full.angle_rad)), np.float32(math.sin(full.angle_rad))
    # A tilt beyond a right angle would put the far side of the brain above the near one.
    if cos < 0:
        cos, sin = -cos, -sin
    dx, dy = beams.x_mm - np.float32(full.center_x), beams.y_mm - np.float32(full.center_y)
    along_mm, across_mm = dx * cos + dy * sin, dy * cos - dx * sin
    along = np.asarray(along_mm / full.semi_major, dtype=np.float32)
    across = np.asarray(across_mm / full.semi_minor, dtype=np.float32)

    # The section's outline by the same first-order distance as `Ellipse.signed_distance`, in float32 and with the
    # normal, which the echo needs.
    radius = np.sqrt(along**2 + across**2) / shrink
    normal_along, normal_across = along / full.semi_major, across / full.semi_minor
    slope = np.sqrt(normal_along**2 + normal_across**2) + np.float32(1e-6)
    distance_mm = (radius - 1.0) * radius * shrink**2 / slope
    normal_x = (normal_along * cos - normal_across * sin) / slope
    normal_y = (normal_along * sin + normal_across * cos) / slope
    square = np.abs(normal_x * beams.towards_x + normal_y * beams.towards_y)

    inside = np.clip(0.5 - distance_mm / 0.6, 0.0, 1.0)
    grey = _with_fluid(tissue_grey, along, across, distance_mm, section, slices)
    brain_grey = _brain_grey(section.forehead * along, across, section.height, slices)
    grey += inside * (brain_grey - grey)

    # Towards the poles the plane cuts the wall at a slant: it looks thicker there and sends less echo back.
    slant = 1.0 / max(shrink, 0.5)
    from_crest_mm = distance_mm - np.float32(_WALL_STEEPEST_MM - slant * _WALL_OUTER_SIGMA_MM)
    sigma_mm = np.where(from_crest_mm > 0, slant * _WALL_OUTER_SIGMA_MM, slant * _WALL_INNER_SIGMA_MM)
    bell = np.exp(-0.5 * (from_crest_mm / sigma_mm) ** 2)
    facing = _WALL_GRAZING_GREY + (_WALL_GREY - _WALL_GRAZING_GREY) * square**1.4
    joints = np.ones_like(bell)
    for suture_along, suture_across in _SUTURES:
        turned = (section.forehead * suture_along * along + suture_across * across) / (radius * shrink + 1e-6)
        joints -= 0.4 * np.exp(_SUTURE_SHARPNESS * (turned - 1.0))
    mirror_grey = (0.45 + 0.55 * shrink) * facing * bell * joints * (1.0 + 0.07 * slices.lumps + 0.04 * slices.grain)

    bone_db = np.cumsum(bell, axis=0) * np.float32(beams.sample_mm * _BONE_DB_PER_MM)
    grey -= np.minimum(bone_db, _BONE_MAX_DB) * np.float32(255.0 / _DYNAMIC_RANGE_DB)

    mirror_grey = np.maximum(mirror_grey, inside * _membrane_grey(along_mm, across_mm, section, beams, slices))
    return np.asarray(grey, dtype=np.float32), np.asarray(mirror_grey, dtype=np.float32)


def _with_fluid(
    tissue_grey: Field, along: Field, across: Field, distance_mm: Field, section: _Section, slices: _Surroundings
) -> Field:
    """Tissue with amniotic fluid beside the head and a thin scalp around it, shape (R, B)."""
    pocket = np.sqrt((along / 1.7) ** 2 + (across / 1.08) ** 2 + section.height**2)
    fluid = np.clip(4.0 * (1.0 - pocket) - 0.6 * slices.patches + 0.25 * slices.lumps, 0.0, 1.0)
    scalp = 36.0 * np.exp(-(((distance_mm - 2.5) / 1.3) ** 2))
    return np.asarray(tissue_grey + fluid * (_FLUID_GREY + scalp - tissue_grey), dtype=np.float32)


def _brain_grey(along: Field, across: Field, height: float, slices: _Surroundings) -> Field:
    """Grey of the brain, shape (R, B), from places in shares of the semi-axes."""
    # Echoes that bounce between the near skull wall and the probe veil the near half.
    grey = _BRAIN_GREY + _HAZE_GREY * np.clip(0.25 - across, 0.0, 1.0) + 6.0 * slices.lumps + 5.0 * slices.grain
    for blob in _BLOBS:
        reach = (height - blob.height) / blob.radius_height
        if abs(reach) >= 1:
            continue
        radius = np.sqrt(
            ((along - blob.along) / blob.radius_along) ** 2
            + ((across - blob.across) / blob.radius_across) ** 2
            + reach**2
        )
        share = np.clip((1.1 - radius + 0.08 * slices.grain) / 0.25, 0.0, 1.0)
        grey += share * (blob.grey - grey)
    return np.asarray(grey, dtype=np.float32)


def _membrane_grey(along_mm: Field, across_mm: Field, section: _Section, beams: _Beams, slices: _Surroundings) -> Field:
    """Grey of the thin mirrors in the brain, shape (R, B)."""
    full = section.full
    grey = np.zeros_like(along_mm)
    for membrane in _MEMBRANES:
        fade = 1.0 - abs(section.height) / membrane.radius_height
        if fade <= 0:
            continue
        # The forehead's side turns the membrane end for end along the head.
        x0, x1 = (section.forehead * full.semi_major * value for value in (membrane.along_0, membrane.along_1))
        y0, y1 = (full.semi_minor * value for value in (membrane.across_0, membrane.across_1))
        length = math.hypot(x1 - x0, y1 - y0)
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        lengthwise = (along_mm - np.float32(x0)) * np.float32(ux) + (across_mm - np.float32(y0)) * np.float32(uy)
        beside = (across_mm - np.float32(y0)) * np.float32(ux) - (along_mm - np.float32(x0)) * np.float32(uy)
        beyond = np.maximum(np.abs(lengthwise - np.float32(length / 2.0)) - np.float32(length / 2.0), 0.0)
        echo = np.exp(-0.5 * (beside / 0.45) ** 2 - 0.5 * (beyond / 1.2) ** 2)
        grey = np.maximum(grey, membrane.grey * math.sqrt(fade) * echo)
    # Mirrors lie along the head, so how square a beam meets them depends on the head's tilt alone.
    tilt_sin, tilt_cos = math.sin(full.angle_rad), math.cos(full.angle_rad)
    square = np.abs(beams.towards_y * np.float32(tilt_cos) - beams.towards_x * np.float32(tilt_sin))
    uneven = 1.0 + 0.10 * slices.lumps + 0.12 * slices.grain
    return np.asarray(grey * (0.4 + 0.6 * square**2) * uneven, dtype=np.float32)
