"""How echoes become a picture.

On the polar grid of samples and beams:
1. Every place in the tissue holds a random complex scatterer, looked up in a table by a hash of the lattice cell that
   its material coordinates fall into. So speckle moves with the tissue and is the same in every frame that sees it.
   Several sheets across the slice are summed, as a beam of some thickness does, so neighbouring planes share speckle.
2. Steps of the impedance are mirrors: their echo goes with the step and with the angle at which the beam meets them.
3. The pulse pays for its way there and back in every tissue that it crosses; the machine amplifies what comes later by
   what an average tissue takes. What is behind bone or gas is dark and what is behind fluid bright for no other reason.
4. Echoes are blurred across the beams, by a Gaussian whose width follows the depth, with a faint wide skirt for the
   side lobes; then noise of the electronics, whose amplification grows with depth, joins them; and all of it is blurred
   along the beam by the pulse.
5. The envelope is compressed to decibels, smoothed a little as scanners do, and bent into the fan.

The slice is flat where mirrors are concerned: an interface that leans out of the plane is as bright as an upright one.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edgefetal_calibration.phantom.probe import FWHM_PER_SIGMA, scan_maps
from edgefetal_calibration.phantom.tissue import acoustic_column
from edgefetal_devices.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    from edgefetal_calibration.phantom.probe import Fan, Probe

    Field = npt.NDArray[np.float32]

# The scatterers' lattice, and the sheets of it that are summed across the slice.
_CELL_MM: Final = 0.4
# How far sheets go to either side, over the slice's thickness.
_REACH_PER_FWHM: Final = 0.6
_TABLE_BITS: Final = 16
_HASH: Final = (np.uint32(0x9E3779B1), np.uint32(0x85EBCA77), np.uint32(0xC2B2AE3D))
# Keeps lattice coordinates positive, where cutting off the fraction rounds downwards.
_LATTICE_ORIGIN: Final = np.float32(8192.0)
# Directions within the slice are taken at every so many samples and beams.
_COARSE: Final = (8, 4)
# Lattice cells in a resolution cell of a usual probe (0.5 x 2 x 2 mm); a density is a share of them.
_SITES_PER_CELL: Final = 30.0
_OCCUPANCIES: Final = 4
_LOOKS: Final = 3

# Lumps of tissue: a periodic volume of smooth noise, with two sizes of lump.
_LUMP_VOXELS: Final = 64
_LUMP_VOXEL_MM: Final = 1.1
# Sheets are this much thinner than lumps, and this much longer.
_SHEET_SHAPE: Final = (0.25, 0.25, 0.9)
_LUMP_SIGMAS: Final = ((0.9, 0.75), (3.5, 0.65))

# How far the edge of a mirror and its direction are smoothed, in samples and beams.
_EDGE_SIGMA: Final = (1.6, 1.1)
_TURN_SIGMA: Final = (5.0, 2.0)
_MAX_STEP: Final = 1.0
# Least share of bone's own echo that is left where the beam grazes it.
_GRAZED: Final = 0.06
_MIRROR_LUMPS_DB: Final = 2.0
# Half of an aperture's breadth, in beams, over which a shadow's edge is soft.
_PENUMBRA_BEAMS: Final = 2.5

_MAX_PATH_DB: Final = 90.0
_DB_PER_NEPER: Final = 20.0 / math.log(10.0)
_LEAST_POWER: Final = 1e-12
# The skirt of a beam is this many times as wide as the beam.
_SKIRT: Final = 6.0
# Beams beyond either edge, so that the blur finds something there.
_EDGE_BEAMS: Final = 16


@dataclass(frozen=True)
class Look:
    """The knobs of a scanner.

    Args:
        gain_db: overall gain; at 0 liver shows at about `mid_grey`.
        dynamic_range_db: decibels from black to white.
        mid_grey: grey of liver at gain 0.
        tgc_db: one-way attenuation that the depth gain makes up for, in dB/(cm MHz).
        max_tgc_db: most that it amplifies.
        noise_db: noise of the electronics at the face, relative to liver there.
        mirror_db: echo of a mirror met square, per unit step of the logarithm of impedance over one pulse length.
        mirror_power: how fast a mirror fades as it leans: the power of the cosine of the angle of incidence.
        mirror_floor: least share of a mirror's echo that comes back from any angle.
        roughness: share of a mirror's echo that breaks up into speckle.
        sidelobe_db: level of the beam's skirt.
        face_db: level of the echoes between the face and the skin.
        looks: pictures with speckle of their own whose power is averaged, as compounding does.
        smoothing_px: standard deviation of the smoothing of the finished picture, in samples and beams.
    """

    gain_db: float = 0.0
    dynamic_range_db: float = 62.0
    mid_grey: float = 118.0
    tgc_db: float = 0.42
    max_tgc_db: float = 58.0
    noise_db: float = -72.0
    mirror_db: float = 45.0
    mirror_power: float = 6.0
    mirror_floor: float = 0.012
    roughness: float = 0.35
    sidelobe_db: float = -31.0
    face_db: float = 14.0
    looks: int = 2
    smoothing_px: float = 0.8

    def __post_init__(self) -> None:
        """Refuse a look without contrast or picture."""
        if not 1 <= self.looks <= _LOOKS:
            raise InputError(f"{self.looks} looks cannot be compounded; give 1 to {_LOOKS}.")
        if not self.dynamic_range_db > 0:
            raise InputError(f"A dynamic range of {self.dynamic_range_db:g} dB shows nothing; give more than 0.")


@dataclass(frozen=True, eq=False)
class _Lattice:
    """What the tissue is made of, by seed.

    Args:
        scatterers: complex amplitudes of mean power 1 of every look, shape (looks, occupancies * entries).
        lumps: smooth periodic noise of unit variance, shape (voxels,) * 3.
    """

    scatterers: npt.NDArray[np.complex64]
    lumps: Field


@dataclass(frozen=True, eq=False)
class _Beamforming:
    """What a probe and a look do to every picture alike.

    Args:
        lateral: transfer function of the beam for every sample, shape (samples, beams with edges, 1).
        pulse: kernel along the beam, shape (taps, 1).
        speckle_gain: what makes speckle of unit scatterers have unit power, shape (samples, 1).
        tgc_db: amplification, shape (samples, 1).
        pulse_power: power that the pulse leaves of white noise.
    """

    lateral: Field
    pulse: Field
    speckle_gain: Field
    tgc_db: Field
    pulse_power: float


@contextlib.contextmanager
def _same_bytes() -> Iterator[None]:
    """Keep OpenCV from Intel's library, whose filters round by where in memory a picture happens to lie.

    The switch is the thread's own.
    """
    used = cv2.ipp.useIPP()
    cv2.ipp.setUseIPP(False)
    try:
        yield
    finally:
        cv2.ipp.setUseIPP(used)


@_same_bytes()
def form_picture(
    labels: npt.NDArray[np.uint8],
    material_mm: npt.NDArray[np.float32],
    probe: Probe,
    fan: Fan,
    look: Look,
    seed: int,
    frame: int = 0,
) -> npt.NDArray[np.uint8]:
    """Make the picture of a slice of tissue, shape (H, W); the same arguments give the same bytes.

    Args:
        labels: `Tissue` at every sample of the probe's grid, shape (samples, beams).
        material_mm: coordinates of the same places in their tissue at rest, shape (samples, beams, 3).
        probe: beams and pulse.
        fan: where they lie in the picture.
        look: knobs of the scanner.
        seed: which tissue it is; all frames of an exam share it.
        frame: number of the frame, which the noise of the electronics depends on.

    Raises:
        InputError: the arrays are not of the probe's grid.
    """
    level_db = 20.0 / math.log(10.0) * 0.5 * cv2.log(_power(labels, material_mm, probe, look, seed, frame))
    picture = look.mid_grey + (255.0 / look.dynamic_range_db) * (level_db + np.float32(look.gain_db))
    picture = np.clip(picture, 0.0, 255.0).astype(np.float32)
    if look.smoothing_px > 0:
        picture = cv2.GaussianBlur(picture, (0, 0), look.smoothing_px)
    to_beam, to_sample = scan_maps(probe, fan)
    bent = cv2.remap(picture, to_beam, to_sample, cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
    return np.rint(bent).astype(np.uint8)


@_same_bytes()
def form_envelope(
    labels: npt.NDArray[np.uint8],
    material_mm: npt.NDArray[np.float32],
    probe: Probe,
    look: Look,
    seed: int,
    frame: int = 0,
) -> npt.NDArray[np.float32]:
    """Return the envelope before compression on the probe's grid, shape (samples, beams); liver's mean power is 1.

    Arguments and errors are those of `form_picture`.
    """
    return np.sqrt(_power(labels, material_mm, probe, look, seed, frame))


def _power(labels: npt.NDArray[np.uint8], material_mm: Field, probe: Probe, look: Look, seed: int, frame: int) -> Field:
    """Echo power on the probe's grid, shape (samples, beams)."""
    grid = (probe.samples, probe.beams)
    if labels.shape != grid or material_mm.shape != (*grid, 3):
        raise InputError(
            f"Labels of shape {labels.shape} and coordinates of shape {material_mm.shape} are not of the probe's grid; "
            f"sample them at its {grid[0]} x {grid[1]} places."
        )
    lattice, forming = _lattice(seed), _beamforming(probe, look)
    lumps = _lumps(material_mm, lattice)
    layers = _lumps(material_mm * np.array(_SHEET_SHAPE, np.float32), lattice)
    through = _exp_db(forming.tgc_db) * _through(labels, probe)
    step, facing = _mirror(labels, probe, look)
    mirror = step * _exp_db(_MIRROR_LUMPS_DB * lumps) * through
    echo_db = acoustic_column("echo_db")[labels] + acoustic_column("lumps_db")[labels] * lumps
    echo_db += acoustic_column("layers_db")[labels] * layers
    # A wall of bone that the beam grazes sends it elsewhere.
    grazed = 1.0 - (1.0 - facing) * np.float32(1.0 - _GRAZED) * acoustic_column("shadows")[labels]
    amplitude = (
        cv2.magnitude(_exp_db(echo_db) * through * grazed, np.float32(look.roughness) * mirror) * forming.speckle_gain
    )
    shine = _face(probe, look, seed)
    noises = _noise(probe, look, forming, seed, frame)
    power = np.full(labels.shape, _LEAST_POWER, np.float32)
    for scatterers, noise in zip(_scatterers(labels, material_mm, probe, look, lattice), noises, strict=True):
        echoes = scatterers * amplitude[..., None]
        echoes[..., 0] += mirror
        pulsed = _along(_across(echoes, forming) + noise + shine, forming)
        real, imaginary = cv2.split(pulsed)
        power += (real * real + imaginary * imaginary) * np.float32(1.0 / look.looks)
    return power


def _exp_db(level_db: Field) -> Field:
    """Amplitude of a level in dB."""
    return np.asarray(cv2.exp(level_db * np.float32(1.0 / _DB_PER_NEPER)), np.float32)


def _through(labels: npt.NDArray[np.uint8], probe: Probe) -> Field:
    """Share of the amplitude that is left after the way to every sample and back."""
    per_sample = acoustic_column("attenuation_db")[labels]
    # Half of a sample's own toll, so that the toll to a sample does not depend on how many there are.
    path_db = np.cumsum(per_sample, axis=0, dtype=np.float32) - 0.5 * per_sample
    path_db *= np.float32(2.0 * probe.frequency_mhz * probe.sample_mm / 10.0)
    left = _exp_db(-np.minimum(path_db, np.float32(_MAX_PATH_DB)))
    # An aperture sees past an edge from many elements.
    taps = 2 * math.ceil(3.0 * _PENUMBRA_BEAMS) + 1
    return np.asarray(cv2.GaussianBlur(left, (taps, 1), _PENUMBRA_BEAMS, borderType=cv2.BORDER_REPLICATE), np.float32)


def _mirror(labels: npt.NDArray[np.uint8], probe: Probe, look: Look) -> tuple[Field, Field]:
    """Echo of the impedance's steps at every sample, and the share of it that their angle to the beam leaves."""
    impedance = cv2.GaussianBlur(
        np.log(acoustic_column("impedance_mrayl"))[labels], (0, 0), sigmaX=_EDGE_SIGMA[1], sigmaY=_EDGE_SIGMA[0]
    )
    half = np.array([-0.5, 0.0, 0.5])
    none = np.array([0.0, 1.0, 0.0])
    along = cv2.sepFilter2D(impedance, cv2.CV_32F, none, half) / np.float32(probe.sample_mm)
    across = cv2.sepFilter2D(impedance, cv2.CV_32F, half, none) / probe.beam_mm[:, None]
    square_on = _turned(along * along)
    aside = _turned(across * across)
    cosine2 = square_on / (square_on + aside + np.float32(1e-9))
    facing = look.mirror_floor + (1.0 - look.mirror_floor) * cv2.pow(cosine2, look.mirror_power / 2.0)
    # A step spread over a wide edge, as one along the beam is, counts as the same step over one pulse length.
    step = np.minimum(cv2.magnitude(along, across) * np.float32(probe.pulse_fwhm_mm), np.float32(_MAX_STEP))
    # What goes into bone or gas hardly comes out again, so their far side is faint.
    kept = cv2.GaussianBlur(
        1.0 - acoustic_column("leaves")[labels], (0, 0), sigmaX=_EDGE_SIGMA[1], sigmaY=_EDGE_SIGMA[0]
    )
    step *= 1.0 - np.where(along < 0, np.minimum(2.0 * kept, 1.0), 0.0).astype(np.float32)
    echo = step * facing * np.float32(10.0 ** (look.mirror_db / 20.0))
    return np.asarray(echo, np.float32), np.asarray(facing, np.float32)


def _turned(gradient2: Field) -> Field:
    """Smooth a square of a gradient over the reach in which a mirror's direction is taken."""
    return np.asarray(cv2.GaussianBlur(gradient2, (0, 0), sigmaX=_TURN_SIGMA[1], sigmaY=_TURN_SIGMA[0]), np.float32)


def _scatterers(
    labels: npt.NDArray[np.uint8], material_mm: Field, probe: Probe, look: Look, lattice: _Lattice
) -> Field:
    """Scatterers summed across the slice, of unit mean power, shape (looks, samples, beams, real and imaginary)."""
    offsets, weights = _sheets(probe.elevation_mm)
    sideways = _slice_normal(material_mm)
    at_rest = material_mm * np.float32(1.0 / _CELL_MM) + _LATTICE_ORIGIN
    row = _occupancy_rows()[labels]
    total = np.zeros((look.looks, *labels.shape), np.complex64)
    for offset, weight in zip(offsets, weights, strict=True):
        cell = (at_rest + sideways * offset).astype(np.int32).view(np.uint32)
        mixed = (cell[..., 0] * _HASH[0]) ^ (cell[..., 1] * _HASH[1]) ^ (cell[..., 2] * _HASH[2])
        # The high bits of a product are the well mixed ones.
        mixed ^= mixed >> np.uint32(15)
        mixed *= _HASH[1]
        entry = (mixed >> np.uint32(32 - _TABLE_BITS)) + row
        for k in range(look.looks):
            total[k] += weight * lattice.scatterers[k].take(entry)
    return total.view(np.float32).reshape(*total.shape, 2)


@lru_cache
def _sheets(elevation_mm: float) -> tuple[tuple[np.float32, ...], tuple[np.float32, ...]]:
    """Offsets of the sheets across the slice, in lattice cells, and their weights; the squares' sum is 1."""
    # One cell apart: further, and a plane between two sheets would share neither's scatterers.
    beside = max(1, round(_REACH_PER_FWHM * elevation_mm / _CELL_MM))
    at = np.arange(-beside, beside + 1, dtype=np.float64)
    weight = np.exp(-0.5 * (at * _CELL_MM * FWHM_PER_SIGMA / elevation_mm) ** 2)
    weight /= np.sqrt(np.sum(weight**2))
    return tuple(np.float32(v) for v in at), tuple(np.float32(v) for v in weight)


@lru_cache
def _occupancy_rows() -> npt.NDArray[np.uint32]:
    """Where the scatterers of each label's density begin in the flattened table."""
    share = np.clip(acoustic_column("per_cell") / _SITES_PER_CELL, 0.5**_OCCUPANCIES, 1.0)
    row = np.clip(np.rint(-np.log2(share)), 0, _OCCUPANCIES - 1).astype(np.uint32)
    return np.asarray(row << np.uint32(_TABLE_BITS), np.uint32)


def _slice_normal(material_mm: Field) -> Field:
    """Direction across the slice in the tissue's own coordinates, shape (samples, beams, 3)."""
    rows, columns = _COARSE
    coarse = material_mm[::rows, ::columns]
    down = np.diff(coarse, axis=0, append=2 * coarse[-1:] - coarse[-2:-1])
    right = np.diff(coarse, axis=1, append=2 * coarse[:, -1:] - coarse[:, -2:-1])
    normal = np.cross(right, down)
    normal /= np.linalg.norm(normal, axis=-1, keepdims=True) + np.float32(1e-9)
    height, width = material_mm.shape[:2]
    return np.asarray(normal.repeat(rows, axis=0).repeat(columns, axis=1)[:height, :width], np.float32)


def _lumps(material_mm: Field, lattice: _Lattice) -> Field:
    """Smooth noise of about unit variance at every sample."""
    rows, columns = _COARSE[0] // 2, _COARSE[1] // 2
    coarse = material_mm[::rows, ::columns] * np.float32(1.0 / _LUMP_VOXEL_MM) + _LATTICE_ORIGIN
    at = coarse.astype(np.int32) & (_LUMP_VOXELS - 1)
    noise = lattice.lumps[at[..., 0], at[..., 1], at[..., 2]]
    height, width = material_mm.shape[:2]
    return np.asarray(cv2.resize(noise, (width, height), interpolation=cv2.INTER_LINEAR), np.float32)


@lru_cache(maxsize=4)
def _lattice(seed: int) -> _Lattice:
    rng = np.random.default_rng((seed, 0))
    entries = 1 << _TABLE_BITS
    parts = rng.standard_normal((_LOOKS, _OCCUPANCIES, entries, 2), np.float32) * np.float32(math.sqrt(0.5))
    chance = rng.random((_OCCUPANCIES, entries), np.float32)
    share = 0.5 ** np.arange(_OCCUPANCIES, dtype=np.float32)[:, None]
    scatterers = parts.view(np.complex64)[..., 0] * np.where(chance < share, np.sqrt(1.0 / share), 0.0)
    shape = (_LUMP_VOXELS,) * 3
    spectrum = np.fft.rfftn(rng.standard_normal(shape))
    wave = np.fft.fftfreq(_LUMP_VOXELS)
    wave2 = wave[:, None, None] ** 2 + wave[None, :, None] ** 2 + np.fft.rfftfreq(_LUMP_VOXELS)[None, None, :] ** 2
    lumps = np.zeros(shape)
    for sigma, weight in _LUMP_SIGMAS:
        smooth = np.fft.irfftn(spectrum * np.exp(-2.0 * (math.pi * sigma) ** 2 * wave2), shape, axes=(0, 1, 2))
        lumps += weight * (smooth - smooth.mean()) / smooth.std()
    return _Lattice(scatterers.astype(np.complex64).reshape(_LOOKS, -1), (lumps / lumps.std()).astype(np.float32))


@lru_cache(maxsize=4)
def _beamforming(probe: Probe, look: Look) -> _Beamforming:
    width = cv2.getOptimalDFTSize(probe.beams + 2 * _EDGE_BEAMS)
    sigma = (probe.lateral_fwhm_mm / FWHM_PER_SIGMA / probe.beam_mm).astype(np.float64)[:, None]
    wave = np.fft.fftfreq(width)[None, :]
    skirt = 10.0 ** (look.sidelobe_db / 20.0)
    lateral = np.exp(-2.0 * (math.pi * sigma * wave) ** 2)
    lateral += skirt * np.exp(-2.0 * (math.pi * _SKIRT * sigma * wave) ** 2)
    lateral /= lateral[:, :1]
    pulse_sigma = probe.pulse_fwhm_mm / FWHM_PER_SIGMA / probe.sample_mm
    pulse = cv2.getGaussianKernel(2 * math.ceil(3.5 * pulse_sigma) + 1, pulse_sigma).astype(np.float64)
    # Neighbouring samples closer than a lattice cell share scatterers, which a blur adds up coherently.
    lateral_power = np.mean(lateral**2 * _cell_spectrum(wave, probe.beam_mm[:, None].astype(np.float64)), axis=1)
    response = np.fft.fft(pulse[:, 0], 4096)
    cells = _cell_spectrum(np.fft.fftfreq(4096)[None, :], np.array([[probe.sample_mm]]))[0]
    pulse_power = float(np.mean(np.abs(response) ** 2 * cells))
    tgc_db = 2.0 * look.tgc_db * probe.frequency_mhz / 10.0 * probe.depths_mm
    return _Beamforming(
        lateral=lateral.astype(np.float32)[..., None],
        pulse=pulse.astype(np.float32),
        speckle_gain=(1.0 / np.sqrt(lateral_power * pulse_power)).astype(np.float32)[:, None],
        tgc_db=np.minimum(tgc_db, look.max_tgc_db).astype(np.float32)[:, None],
        pulse_power=float(np.sum(pulse**2)),
    )


def _cell_spectrum(wave: npt.NDArray[Any], step_mm: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Power spectrum of scatterers sampled every `step_mm` of which those in one lattice cell are alike."""
    spectrum = np.ones(np.broadcast_shapes(wave.shape, step_mm.shape))
    for apart in range(1, math.ceil(_CELL_MM / float(step_mm.min())) + 1):
        shared = np.maximum(0.0, 1.0 - apart * step_mm / _CELL_MM)
        spectrum = spectrum + 2.0 * shared * np.cos(2.0 * math.pi * apart * wave)
    return spectrum


def _across(echoes: Field, forming: _Beamforming) -> Field:
    """Blur every row by the beam's width at its depth."""
    beams = echoes.shape[1]
    beyond = forming.lateral.shape[1] - beams
    left = beyond // 2
    padded = cv2.copyMakeBorder(echoes, 0, 0, left, beyond - left, cv2.BORDER_REFLECT_101)
    spectrum = np.asarray(cv2.dft(padded, flags=cv2.DFT_ROWS), np.float32)
    blurred = cv2.dft(spectrum * forming.lateral, flags=cv2.DFT_ROWS | cv2.DFT_INVERSE | cv2.DFT_SCALE)
    return np.ascontiguousarray(blurred[:, left : left + beams])


def _along(echoes: Field, forming: _Beamforming) -> Field:
    """Blur every beam by the pulse."""
    itself = np.ones(1, np.float32)
    blurred = cv2.sepFilter2D(echoes, cv2.CV_32F, itself, forming.pulse, borderType=cv2.BORDER_REFLECT_101)
    return np.asarray(blurred, np.float32)


def _noise(probe: Probe, look: Look, forming: _Beamforming, seed: int, frame: int) -> Field:
    """Noise of the electronics in every look, amplified with depth, shape (looks, samples, beams, 2)."""
    rng = np.random.default_rng((seed, 1, frame))
    noise = rng.standard_normal((look.looks, probe.samples, probe.beams, 2), np.float32)
    level = 10.0 ** (look.noise_db / 20.0) / math.sqrt(2.0 * forming.pulse_power)
    noise *= (_exp_db(forming.tgc_db) * np.float32(level))[..., None]
    return noise


@lru_cache(maxsize=4)
def _face(probe: Probe, look: Look, seed: int) -> Field:
    """Echoes between the face and the skin: bands that die away over some millimetres, shape (samples, 1, 2)."""
    rng = np.random.default_rng((seed, 2))
    bands = rng.standard_normal((probe.samples, 2), np.float32)
    fade = np.exp(-probe.depths_mm / 2.0) * 10.0 ** (look.face_db / 20.0)
    return np.asarray(bands[:, None, :] * fade[:, None, None], np.float32)
