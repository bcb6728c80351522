"""A curved array and the fan that its beams fill in a picture.

Places in the imaged plane are x to the right and z into the body, in mm from the middle of the probe's face, as in
`Plane`. Polar grids have a row for each sample along the beam and a column for each beam.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Final

import numpy as np

from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    import numpy.typing as npt

SOUND_MM_PER_US: Final = 1.54
# Full width at half maximum of a Gaussian over its standard deviation.
FWHM_PER_SIGMA: Final = 2.0 * math.sqrt(2.0 * math.log(2.0))
_OUTSIDE: Final = -16.0


@dataclass(frozen=True)
class Probe:
    """A curved array with its beams and its pulse.

    Args:
        face_radius_mm: radius of the face.
        sector_rad: angle between the outermost beams.
        depth_mm: length of a beam.
        frequency_mhz: middle of the pulse's spectrum.
        bandwidth: width of the spectrum at -6 dB over the middle frequency.
        focus_mm: depth of the transmit focus.
        f_number: depth over width of the receiving aperture, kept up as far as the array is wide enough.
        aperture_mm: widest receiving aperture.
        elevation_mm: thickness of the imaged slice, full width at half maximum.
        beams: beams of a picture.
        samples: samples of a beam.

    Raises:
        InputError: a figure cannot be a probe's.
    """

    face_radius_mm: float
    sector_rad: float
    depth_mm: float
    frequency_mhz: float = 3.5
    bandwidth: float = 0.65
    focus_mm: float = 80.0
    f_number: float = 3.0
    aperture_mm: float = 24.0
    elevation_mm: float = 2.0
    beams: int = 224
    samples: int = 640

    def __post_init__(self) -> None:
        """Refuse what cannot be a probe."""
        lengths = (
            self.face_radius_mm, self.depth_mm, self.frequency_mhz, self.bandwidth, self.focus_mm, self.f_number,
            self.aperture_mm, self.elevation_mm,
        )  # fmt: skip
        if not all(math.isfinite(value) and value > 0 for value in lengths):
            raise InputError(f"A probe of {self} cannot be; give lengths and frequency above zero.")
        if not 0 < self.sector_rad < math.pi:
            raise InputError(f"A sector of {self.sector_rad:g} rad is none; give more than 0 and less than pi.")
        if min(self.beams, self.samples) < 16:  # noqa: PLR2004 - the point spread has to fit
            raise InputError(f"{self.beams} beams of {self.samples} samples are too few; give at least 16 of each.")

    @property
    def wavelength_mm(self) -> float:
        """Return the wavelength in tissue."""
        return SOUND_MM_PER_US / self.frequency_mhz

    @property
    def sample_mm(self) -> float:
        """Return the distance between samples of a beam."""
        return self.depth_mm / (self.samples - 1)

    @property
    def beam_rad(self) -> float:
        """Return the angle between neighbouring beams."""
        return self.sector_rad / (self.beams - 1)

    @property
    def pulse_fwhm_mm(self) -> float:
        """Return the length of the echo's envelope from a point: 0.44 c over the bandwidth in Hz, for a Gaussian pulse.

        The product of a Gaussian's two full widths at half of its amplitude, in time and in frequency, is
        4 ln 2 / pi = 0.88; an echo's path is walked twice, which halves the length.
        """
        return 2.0 * math.log(2.0) / math.pi * SOUND_MM_PER_US / (self.bandwidth * self.frequency_mhz)

    @cached_property
    def depths_mm(self) -> npt.NDArray[np.float32]:
        """Return the samples' depths below the face, shape (samples,)."""
        return np.linspace(0.0, self.depth_mm, self.samples, dtype=np.float32)

    @cached_property
    def angles_rad(self) -> npt.NDArray[np.float32]:
        """Return the beams' angles, from left to right, shape (beams,)."""
        return np.linspace(-self.sector_rad / 2, self.sector_rad / 2, self.beams, dtype=np.float32)

    @cached_property
    def x_mm(self) -> npt.NDArray[np.float32]:
        """Return x of every sample, shape (samples, beams)."""
        return np.asarray((self.face_radius_mm + self.depths_mm)[:, None] * np.sin(self.angles_rad), np.float32)

    @cached_property
    def z_mm(self) -> npt.NDArray[np.float32]:
        """Return z of every sample, shape (samples, beams)."""
        radius_mm = (self.face_radius_mm + self.depths_mm)[:, None]
        return np.asarray(radius_mm * np.cos(self.angles_rad) - self.face_radius_mm, np.float32)

    @cached_property
    def beam_mm(self) -> npt.NDArray[np.float32]:
        """Return the distance between neighbouring beams at every depth, shape (samples,)."""
        return np.asarray((self.face_radius_mm + self.depths_mm) * self.beam_rad, np.float32)

    @cached_property
    def lateral_fwhm_mm(self) -> npt.NDArray[np.float32]:
        """Return the beam's width at half maximum at every depth, shape (samples,).

        Wavelength times f-number in the focus, the f-number growing with depth once the aperture is at its widest;
        off the focus it spreads as a Gaussian beam does whose depth of field is 8 wavelengths times the square of the
        f-number.
        """
        f_number = np.maximum(self.f_number, self.depths_mm / self.aperture_mm)
        at_focus = max(self.f_number, self.focus_mm / self.aperture_mm)
        reach_mm = 8.0 * self.wavelength_mm * at_focus**2
        spread = np.sqrt(1.0 + ((self.depths_mm - self.focus_mm) / reach_mm) ** 2)
        return np.asarray(self.wavelength_mm * f_number * spread, np.float32)


@dataclass(frozen=True)
class Fan:
    """Where the beams of a probe lie in a picture.

    Args:
        width_px: columns.
        height_px: rows.
        x_mm_per_px: width of a pixel.
        y_mm_per_px: height of a pixel.
        face_x_px: column of the middle of the probe's face.
        face_y_px: row of the middle of the probe's face.

    Raises:
        InputError: a figure cannot be a picture's.
    """

    width_px: int
    height_px: int
    x_mm_per_px: float
    y_mm_per_px: float
    face_x_px: float
    face_y_px: float

    def __post_init__(self) -> None:
        """Refuse what cannot be a picture."""
        sizes_mm = (self.x_mm_per_px, self.y_mm_per_px)
        if min(self.width_px, self.height_px) < 1 or not all(0 < size < math.inf for size in sizes_mm):
            raise InputError(
                f"A picture of {self.width_px} x {self.height_px} pixels of {self.x_mm_per_px:g} x "
                f"{self.y_mm_per_px:g} mm cannot be; give sizes above zero."
            )

    @cached_property
    def x_mm(self) -> npt.NDArray[np.float32]:
        """Return x of every pixel's middle, shape (H, W)."""
        x = (np.arange(self.width_px, dtype=np.float32) - np.float32(self.face_x_px)) * np.float32(self.x_mm_per_px)
        return np.broadcast_to(x, (self.height_px, self.width_px))

    @cached_property
    def z_mm(self) -> npt.NDArray[np.float32]:
        """Return z of every pixel's middle, shape (H, W)."""
        z = (np.arange(self.height_px, dtype=np.float32) - np.float32(self.face_y_px)) * np.float32(self.y_mm_per_px)
        return np.broadcast_to(z[:, None], (self.height_px, self.width_px))

    def to_px(self, x_mm: float, z_mm: float) -> tuple[float, float]:
        """Return the pixel coordinates, x and y, of a place in the plane."""
        return self.face_x_px + x_mm / self.x_mm_per_px, self.face_y_px + z_mm / self.y_mm_per_px

    def mask(self, probe: Probe) -> npt.NDArray[np.bool_]:
        """Return which pixels the beams reach, shape (H, W)."""
        return scan_maps(probe, self)[0] >= 0


def fitted_fan(probe: Probe, width_px: int, height_px: int, *, margin_px: float = 4.0) -> Fan:
    """Place the whole of a probe's sector in a picture of square pixels, as large as fits."""
    half = probe.sector_rad / 2
    reach_mm = probe.face_radius_mm + probe.depth_mm
    sagitta_mm = probe.face_radius_mm * (1 - math.cos(half))
    wide_mm, high_mm = 2 * reach_mm * math.sin(half), probe.depth_mm + sagitta_mm
    mm_per_px = max(wide_mm / (width_px - 2 * margin_px), high_mm / (height_px - 2 * margin_px))
    face_y_px = (height_px - high_mm / mm_per_px) / 2 + sagitta_mm / mm_per_px
    return Fan(width_px, height_px, mm_per_px, mm_per_px, (width_px - 1) / 2, face_y_px)


@lru_cache(maxsize=8)
def scan_maps(probe: Probe, fan: Fan) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return the beam and the sample, as fractions, under every pixel, each (H, W); negative where there is none."""
    across = fan.x_mm.astype(np.float64)
    from_apex = fan.z_mm.astype(np.float64) + probe.face_radius_mm
    beam = (np.arctan2(across, from_apex) + probe.sector_rad / 2) / probe.beam_rad
    sample = (np.hypot(across, from_apex) - probe.face_radius_mm) / probe.sample_mm
    inside = (beam >= 0) & (beam <= probe.beams - 1) & (sample >= 0) & (sample <= probe.samples - 1)
    maps = tuple(np.where(inside, place, _OUTSIDE).astype(np.float32) for place in (beam, sample))
    for place in maps:
        place.flags.writeable = False
    return maps[0], maps[1]


def acouslic_probe() -> Probe:
    """Return the probe of ACOUSLIC-AI: the geometry is fitted to the edges of its field of view."""
    return Probe(face_radius_mm=59.5, sector_rad=1.0432, depth_mm=149.9)


def acouslic_fan() -> Fan:
    """Return the fan of ACOUSLIC-AI: 744 x 562 pixels of 0.28 mm."""
    return Fan(744, 562, 0.28, 0.28, face_x_px=371.95, face_y_px=27.65)


def clinical_probe() -> Probe:
    """Return a hospital scanner's abdominal probe: a higher frequency and a finer beam than a handheld's."""
    return Probe(
        face_radius_mm=45.0, sector_rad=math.radians(66.0), depth_mm=140.0, frequency_mhz=4.5, focus_mm=70.0,
        f_number=2.2, aperture_mm=32.0, elevation_mm=1.6, beams=256, samples=720,
    )  # fmt: skip
