"""Ultrasound images in DICOM files: the frames of every 2-D tissue region, with the region's own pixel size.

A lone region without a calibration is not cut out: the ruler beside it may be all that tells its pixel size.

Rules are those of DICOM PS3.3, C.8.5.5 (US Region Calibration). Only the few attributes in `_TAGS` are ever read; no
field that names a patient is. DICOMDIR is refused, because file sets have let files elsewhere be written
(CVE-2026-32711), and so are deflated files, which pydicom inflates whole.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from itertools import accumulate, combinations
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from edgefetal_devices.errors import EdgeFetalError, SourceError
from edgefetal_runtime.frame import Frame
from edgefetal_runtime.scale import NoScale, Scale, refuse_conflict
from edgefetal_runtime.sources.limits import DEFAULT_FRAMES_PER_S, MAX_FRAME_PIXELS, MAX_FRAMES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import numpy.typing as npt
    from pydicom.dataset import Dataset

DICOM_SUFFIXES = (".dcm", ".dicom")
_PREAMBLE_BYTES, _MARK = 128, b"DICM"
_DIRECTORY = "1.2.840.10008.1.3.10"
# Ultrasound Image and Multi-frame Image Storage, each with its retired forerunner.
_ULTRASOUND = {f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("6.1", "3.1", "6", "3")}
_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
# Implicit and explicit little endian, explicit big endian, RLE: pydicom decodes them by itself.
_NATIVE = {"1.2.840.10008.1.2", "1.2.840.10008.1.2.1", "1.2.840.10008.1.2.2", "1.2.840.10008.1.2.5"}
_PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2", "RGB", "YBR_FULL", "YBR_FULL_422")
_TAGS = [
    "SOPClassUID", "Modality", "Rows", "Columns", "NumberOfFrames", "SamplesPerPixel", "PhotometricInterpretation",
    "BitsAllocated", "BitsStored", "PixelRepresentation", "SequenceOfUltrasoundRegions", "PixelSpacing", "FrameTime",
    "FrameTimeVector", "CineRate", "RecommendedDisplayFrameRate",
]  # fmt: skip
MAX_PIXELS = 64_000_000_000
_TWO_DIMENSIONAL, _TISSUE, _CENTIMETRES = 1, 1, 3
_MM_PER_CM = 10.0


@dataclass(frozen=True)
class Region:
    """A part of the picture that is measured on its own.

    Args:
        sweep: name of its sweep.
        left_px: first column.
        top_px: first row.
        right_px: column after the last.
        bottom_px: row after the last.
        scale: its pixel size, or why there is none.
    """

    sweep: str
    left_px: int
    top_px: int
    right_px: int
    bottom_px: int
    scale: Scale | NoScale


@dataclass(frozen=True)
class DicomSource:
    """An ultrasound DICOM file: each 2-D tissue region is one sweep.

    Args:
        path: the file.
        regions: what is cut out of every frame; the whole frame where there is no region, or one without a pixel size.
        times_s: time of every frame, seconds.
        height_px: rows of a frame as stored.
        width_px: columns of a frame as stored.
        photometric: how grey levels are coded.
        jpeg: the frames are JPEG baseline.
        spacing: PixelSpacing, against which scales are checked; None where absent.
    """

    path: Path
    regions: tuple[Region, ...]
    times_s: tuple[float, ...]
    height_px: int
    width_px: int
    photometric: str
    jpeg: bool
    spacing: Scale | None
    kind: str = "dicom"

    @property
    def frame_count(self) -> int:
        """Return the number of frames of all sweeps."""
        return len(self.times_s) * len(self.regions)

    def frames(self) -> Iterator[Frame]:
        """Decode the frames one by one, region after region.

        Raises:
            SourceError: the pixels are cut short, damaged, or of another size than the header says.
        """
        for region in self.regions:
            pictures = self._pictures()
            for index, time_s in enumerate(self.times_s):
                pixels = self._next(pictures, index)
                crop = pixels[region.top_px : region.bottom_px, region.left_px : region.right_px]
                origin_px = (region.left_px, region.top_px)
                yield Frame(np.ascontiguousarray(crop), region.sweep, index, time_s, region.scale, origin_px)

    def _next(self, pictures: Iterator[npt.NDArray[np.uint8]], index: int) -> npt.NDArray[np.uint8]:
        """Decode one frame; whatever a damaged file does to the decoder is the file's fault."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                pixels = next(pictures, None)
        except EdgeFetalError:
            raise
        except Exception as error:
            message = f"{self.path}, frame {index}, cannot be decoded ({type(error).__name__}); copy the file again."
            raise SourceError(message) from error
        if pixels is None or pixels.shape != (self.height_px, self.width_px):
            held = "missing" if pixels is None else f"of {pixels.shape[1]} x {pixels.shape[0]} pixels"
            message = (
                f"{self.path}, frame {index}, is {held}, and the header says {self.width_px} x {self.height_px}; "
                "copy the file again."
            )
            raise SourceError(message)
        return 255 - pixels if self.photometric == "MONOCHROME1" else pixels

    def _pictures(self) -> Iterator[npt.NDArray[np.uint8]]:
        return self._jpeg_pictures() if self.jpeg else self._native_pictures()

    def _native_pictures(self) -> Iterator[npt.NDArray[np.uint8]]:
        from pydicom.pixels.utils import iter_pixels  # noqa: PLC0415 - a third of a second that only DICOM files should cost

        for pixels in iter_pixels(self.path, decoding_plugin="pydicom"):
            if pixels.dtype != np.uint8:
                message = f"{self.path} has pixels of {pixels.dtype}; export it with 8 bits, as the machine shows it."
                raise SourceError(message)
            # Colour comes as RGB from iter_pixels, whatever the file holds.
            grey = pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)  # noqa: PLR2004 - rows, columns
            yield np.asarray(grey, np.uint8)

    def _jpeg_pictures(self) -> Iterator[npt.NDArray[np.uint8]]:
        from pydicom import dcmread  # noqa: PLC0415 - a third of a second that only DICOM files should cost
        from pydicom.encaps import generate_frames  # noqa: PLC0415 - likewise

        data = dcmread(self.path, specific_tags=["PixelData"]).PixelData
        for content in generate_frames(data, number_of_frames=len(self.times_s)):
            # OpenCV allocates what the picture's own header says; that must be what the file's says.
            size = jpeg_size(content)
            if size != (self.width_px, self.height_px):
                message = (
                    f"{self.path} holds a JPEG picture of size {size}, and its header says {self.width_px} x "
                    f"{self.height_px}; copy the file again."
                )
                raise SourceError(message)
            pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            if pixels is None:
                return
            yield np.asarray(pixels if pixels.ndim == 2 else cv2.cvtColor(pixels, cv2.COLOR_BGR2GRAY), np.uint8)  # noqa: PLR2004 - rows, columns


def jpeg_size(content: bytes) -> tuple[int, int] | None:
    """Read width and height from a JPEG's frame header (ITU-T T.81, B.2.2), or None where it has none."""
    place = 2
    while place + 9 <= len(content) and content[place] == 0xFF:  # noqa: PLR2004 - every marker begins so
        marker = content[place + 1]
        if 0xC0 <= marker <= 0xCF and marker not in {0xC4, 0xC8, 0xCC}:  # noqa: PLR2004 - SOF, less DHT, JPG and DAC
            return int.from_bytes(content[place + 7 : place + 9], "big"), int.from_bytes(
                content[place + 5 : place + 7], "big"
            )
        place += 2 + int.from_bytes(content[place + 2 : place + 4], "big")
    return None


def has_dicom_mark(path: Path) -> bool:
    """Tell whether a file bears DICOM's mark after its preamble (PS3.10, 7.1)."""
    try:
        with path.open("rb") as stream:
            return stream.read(_PREAMBLE_BYTES + len(_MARK))[_PREAMBLE_BYTES:] == _MARK
    except OSError:
        return False


def open_dicom(path: Path) -> DicomSource:
    """Read the header of an ultrasound DICOM file.

    Raises:
        SourceError: the file is no DICOM file, no ultrasound image, damaged, or coded in a way that is not read here.
        ScaleError: a region is impossible, or its pixel size contradicts PixelSpacing.
    """
    if not has_dicom_mark(path):
        message = f"{path} is not a DICOM file (no DICM mark after 128 bytes); export it again."
        raise SourceError(message)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return _open(path)
    except EdgeFetalError:
        raise
    except Exception as error:
        message = f"{path} is a damaged DICOM file ({type(error).__name__}); copy or export it again."
        raise SourceError(message) from error


def _open(path: Path) -> DicomSource:
    from pydicom import dcmread  # noqa: PLC0415 - a third of a second that only DICOM files should cost
    from pydicom.filereader import read_file_meta_info  # noqa: PLC0415 - likewise

    meta = read_file_meta_info(path)
    if meta.get("MediaStorageSOPClassUID") == _DIRECTORY:
        message = f"{path} is a DICOMDIR, an index of other files; give one of the images that it lists."
        raise SourceError(message)
    syntax = meta.TransferSyntaxUID
    if syntax not in {_JPEG_BASELINE, *_NATIVE}:
        message = (
            f"{path} is coded as {syntax.name} ({syntax}), which is not decoded here; convert it with "
            "`gdcmconv --raw` or DCMTK's `dcmdjpeg`."
        )
        raise SourceError(message)
    header = dcmread(path, stop_before_pixels=True, specific_tags=list(_TAGS))
    _check_image(header, path)
    width_px, height_px = int(header.Columns), int(header.Rows)
    count = int(header.get("NumberOfFrames") or 1)
    if (
        min(width_px, height_px, count) < 1
        or width_px * height_px > MAX_FRAME_PIXELS
        or count > MAX_FRAMES
        or width_px * height_px * count > MAX_PIXELS
    ):
        message = (
            f"{path} states {count} frames of {width_px} x {height_px} pixels, which no machine makes; export it again."
        )
        raise SourceError(message)
    photometric = str(header.get("PhotometricInterpretation"))
    jpeg = syntax == _JPEG_BASELINE
    if photometric not in _PHOTOMETRIC or (jpeg and photometric == "RGB"):
        message = (
            f"{path} holds {photometric} pixels{' in JPEG' if jpeg else ''}, which are not read; export it as "
            "MONOCHROME2, or convert it with `gdcmconv --raw`."
        )
        raise SourceError(message)
    spacing = _pixel_spacing(header, path)
    regions = _regions(header, path, (width_px, height_px), spacing)
    return DicomSource(path, regions, _times_s(header, count), height_px, width_px, photometric, jpeg, spacing)


def _check_image(header: Dataset, path: Path) -> None:
    """Refuse what is no 8-bit ultrasound image."""
    if header.get("SOPClassUID") not in _ULTRASOUND and header.get("Modality") != "US":
        message = f"{path} is no ultrasound image (modality {header.get('Modality')}); give one of modality US."
        raise SourceError(message)
    if "Rows" not in header or "Columns" not in header:
        message = f"{path} holds no picture; give an ultrasound image."
        raise SourceError(message)
    bits = header.get("BitsAllocated"), header.get("BitsStored"), header.get("PixelRepresentation", 0)
    if bits != (8, 8, 0):
        message = (
            f"{path} has {bits[1]} bits a pixel in {bits[0]}{', signed' if bits[2] else ''}; export it with 8 bits, "
            "as the machine shows it."
        )
        raise SourceError(message)


def _times_s(header: Dataset, count: int) -> tuple[float, ...]:
    """Return the frames' times by FrameTimeVector, FrameTime (ms), or the rates; else at 30 frames a second."""
    vector = [float(step) for step in _values(header, "FrameTimeVector")]
    if len(vector) == count and all(math.isfinite(step) and step >= 0 for step in vector):
        # The first entry is the time before the first frame.
        return tuple(ms / 1000 for ms in accumulate([0.0, *vector[1:]]))
    intervals_s = [
        *(float(ms) / 1000 for ms in _values(header, "FrameTime")),
        *(1 / float(rate) for rate in _values(header, "CineRate") if rate),
        *(1 / float(rate) for rate in _values(header, "RecommendedDisplayFrameRate") if rate),
    ]
    usable = [interval for interval in intervals_s if math.isfinite(interval) and interval > 0]
    step_s = usable[0] if usable else 1 / DEFAULT_FRAMES_PER_S
    return tuple(index * step_s for index in range(count))


def _values(header: Dataset, keyword: str) -> list[Any]:
    """Return an attribute's values, however many there are."""
    value = header.get(keyword)
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) or not hasattr(value, "__iter__") else list(value)


def _pixel_spacing(header: Dataset, path: Path) -> Scale | None:
    spacing = [float(value) for value in _values(header, "PixelSpacing")]
    if not spacing:
        return None
    y_mm, x_mm = spacing  # rows first (PS3.3, 10.7.1.3)
    return Scale(x_mm, y_mm, origin=f"PixelSpacing of {path.name}")


def _regions(header: Dataset, path: Path, size_px: tuple[int, int], spacing: Scale | None) -> tuple[Region, ...]:
    """Return the 2-D tissue regions, or the whole frame without a scale where there is none, or one without a size.

    Raises:
        ScaleError: a region lies outside the picture or over another, or contradicts PixelSpacing.
    """
    width_px, height_px = size_px
    stated = list(header.get("SequenceOfUltrasoundRegions") or [])
    tissue = [
        (number, item)
        for number, item in enumerate(stated, start=1)
        if (item.get("RegionSpatialFormat"), item.get("RegionDataType")) == (_TWO_DIMENSIONAL, _TISSUE)
    ]
    if not tissue:
        return (Region(path.name, 0, 0, width_px, height_px, _no_region(path, len(stated), spacing)),)
    lacks = [_lacks(item) for _, item in tissue]
    # `--mm-per-px` speaks for files that state nothing: where one region is calibrated, it is not asked for the others.
    advice = (
        "give --mm-per-px to have millimetres"
        if all(lacks)
        else "--mm-per-px is not taken for it, because another region of the file states its own pixel size: export it "
        "again with every region calibrated, or measure in the other one"
    )
    regions = []
    for (number, item), lack in zip(tissue, lacks, strict=True):
        left, top = int(item.RegionLocationMinX0), int(item.RegionLocationMinY0)
        right, bottom = _after(item.RegionLocationMaxX1, width_px), _after(item.RegionLocationMaxY1, height_px)
        # A region of one row or column is empty too: no contour fits into it.
        if not (0 <= left < right - 1 < width_px and 0 <= top < bottom - 1 < height_px):
            message = (
                f"{path}, region {number}, spans columns {left} to {item.RegionLocationMaxX1} and rows {top} to "
                f"{item.RegionLocationMaxY1} of a picture of {width_px} x {height_px}; the picture was resized or "
                "cropped after it was taken: export the original."
            )
            raise SourceError(message)
        scale = (
            NoScale(f"{path.name}, region {number}, {lack}; {advice}") if lack else _region_scale(item, number, path)
        )
        if scale and spacing:
            refuse_conflict(scale, spacing)
        name = path.name if len(tissue) == 1 else f"{path.name}#region-{number}"
        regions.append(Region(name, left, top, right, bottom, scale))
    if len(regions) == 1 and not regions[0].scale:
        return (Region(path.name, 0, 0, width_px, height_px, regions[0].scale),)
    for a, b in combinations(regions, 2):
        # Neighbours may share the line between them.
        if min(a.right_px, b.right_px) - max(a.left_px, b.left_px) > 1 and (
            min(a.bottom_px, b.bottom_px) - max(a.top_px, b.top_px) > 1
        ):
            message = f"{path}: {a.sweep} and {b.sweep} overlap, and one pixel has one size; export the original."
            raise SourceError(message)
    return tuple(regions)


def _after(last: int, size_px: int) -> int:
    """Return the column or row after a region's last; some machines give that one itself."""
    return size_px if last == size_px else int(last) + 1


def _lacks(item: Dataset) -> str | None:
    """Say what a region lacks of a calibration; None where it has one."""
    units = item.get("PhysicalUnitsXDirection"), item.get("PhysicalUnitsYDirection")
    if units != (_CENTIMETRES, _CENTIMETRES):
        return f"is not in centimetres (units {units[0]} and {units[1]})"
    missing = [keyword for keyword in ("PhysicalDeltaX", "PhysicalDeltaY") if item.get(keyword) in {None, ""}]
    return f"is not calibrated (it has no {' and no '.join(missing)})" if missing else None


def _region_scale(item: Dataset, number: int, path: Path) -> Scale:
    """Return a calibrated region's pixel size; it is signed by direction and in cm, for each axis apart."""
    x_mm, y_mm = (_MM_PER_CM * abs(float(delta)) for delta in (item.PhysicalDeltaX, item.PhysicalDeltaY))
    return Scale(x_mm, y_mm, origin=f"DICOM region {number} of {path.name}")


def _no_region(path: Path, stated: int, spacing: Scale | None) -> NoScale:
    """Say why there is no scale.

    PixelSpacing alone is not believed: it is no attribute of the Ultrasound IODs (PS3.3, A.6 and A.7), where the
    regions carry the calibration, and what writes it nonetheless may mean the screen, or nothing (1 by 1).
    """
    lacks = "has no 2-D tissue region" if stated else "has no calibrated region"
    if spacing is None:
        return NoScale(f"{path.name} {lacks}; give --mm-per-px, or export the original with its calibration")
    return NoScale(
        f"{path.name} {lacks}, and its PixelSpacing ({spacing.x_mm_per_px:g} x {spacing.y_mm_per_px:g} mm) alone does "
        "not count in ultrasound; check it with a caliper on the picture and give it as --mm-per-px"
    )
