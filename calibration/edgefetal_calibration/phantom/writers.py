"""Files of simulated exams, each of which appears whole or not at all.

The layout of ACOUSLIC-AI is that of its public set: `images/stacked_fetal_ultrasound/<uuid>.mha`,
`masks/stacked_fetal_abdomen/<uuid>.mha` (0 background, 1 optimal, 2 suboptimal) and
`circumferences/fetal_abdominal_circumferences_per_sweep.csv`. What is said nowhere, and so is our choice: that the
stacks are compressed, and how many digits the table has.
"""

from __future__ import annotations

import contextlib
import csv
import io
import os
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import cv2
import numpy as np

from edgefetal_calibration.datasets.hc18 import ANNOTATION_SUFFIX, FOLDER, MASK_EDGE_OFFSET_PX, TABLE
from edgefetal_devices.errors import InputError, OutputError
from edgefetal_runtime.atomic import as_output_error, new_folder, refuse_existing, write_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt
    from pydicom.dataset import FileDataset

    from edgefetal_calibration.phantom.cine import Cine
    from edgefetal_runtime.biometry.ellipse import Ellipse

ACOUSLIC_IMAGES: Final = "images/stacked_fetal_ultrasound"
ACOUSLIC_MASKS: Final = "masks/stacked_fetal_abdomen"
ACOUSLIC_TABLE: Final = "circumferences/fetal_abdominal_circumferences_per_sweep.csv"
ACOUSLIC_SWEEPS: Final = 6
# The spacing is stored as the nearest 32-bit number to 0.28.
ACOUSLIC_SPACING_MM: Final = float(np.float32(0.28))

# The fastest level: speckle gains little from more.
_ZLIB_LEVEL: Final = 1
_SIZE_DIGITS: Final = 15
_CODECS: Final = {".avi": "FFV1", ".mp4": "mp4v"}
_ULTRASOUND_MULTIFRAME: Final = "1.2.840.10008.5.1.4.1.1.3.1"
_LITTLE_ENDIAN: Final = "1.2.840.10008.1.2.1"
# Root of the UIDs that pydicom makes for anyone.
_UID_ROOT: Final = "1.2.826.0.1.3680043.8.498."
_MM_PER_CM: Final = 10.0


@dataclass(frozen=True)
class SweepCircumferences:
    """A row of ACOUSLIC's table.

    Args:
        uuid: name of the exam's files.
        subject_id: whose exam it is.
        ac_mm: abdominal circumference of every sweep; None where no frame of it shows the abdomen.

    Raises:
        InputError: there are not six sweeps.
    """

    uuid: str
    subject_id: str
    ac_mm: tuple[float | None, ...]

    def __post_init__(self) -> None:
        """Refuse another number of sweeps."""
        if len(self.ac_mm) != ACOUSLIC_SWEEPS:
            raise InputError(f"An exam has {ACOUSLIC_SWEEPS} sweeps, and {len(self.ac_mm)} circumferences were given.")


@dataclass(frozen=True, eq=False)
class HeadPicture:
    """A picture for a folder in HC18's layout.

    Args:
        name: file name, `NNN_HC.png`.
        pixels: shape (H, W), uint8.
        head_px: outline of the skull in pixels.
        mm_per_px: size of a pixel; HC18's are square.
    """

    name: str
    pixels: npt.NDArray[np.uint8]
    head_px: Ellipse
    mm_per_px: float


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[Path]:
    """Give a hidden name to write to, in a folder made if need be; the file gets its own name when all went well."""
    refuse_existing(path)
    # The suffix stays last, because it tells OpenCV which container to write.
    partial = path.with_name(f".{path.stem}.partial{path.suffix}")
    try:
        with as_output_error(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            yield partial
            with partial.open("rb") as stream:
                os.fsync(stream.fileno())
            partial.rename(path)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def write_mha(cine: Cine, path: Path, *, compressed: bool = True) -> None:
    """Write a sweep as a MetaImage stack that states pixel size and frame rate.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    spacing = (cine.x_mm_per_px, cine.y_mm_per_px, 1.0)
    extra = f"AcquisitionFrameRate = {cine.frames_per_s:g}\n"
    write_stack(cine.frames, path, spacing, compressed=compressed, extra=extra)


def write_stack(
    frames: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
    path: Path,
    spacing_mm: tuple[float, float, float],
    *,
    compressed: bool,
    extra: str = "",
) -> None:
    """Write frames of one shape one after another, with the memory of one."""
    height, width = frames[0].shape
    header = (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
        f"CompressedData = {compressed}\n%s"
        "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nCenterOfRotation = 0 0 0\nAnatomicalOrientation = RAI\n"
        f"ElementSpacing = {' '.join(f'{value:.17g}' for value in spacing_mm)}\n"
        f"DimSize = {width} {height} {len(frames)}\n{extra}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n"
    )
    with _new_file(path) as partial, partial.open("wb") as stream:
        if not compressed:
            stream.write((header % "").encode())
            stream.writelines(np.ascontiguousarray(frame).data for frame in frames)
            return
        # The size is known at the end and stands at the beginning: leading zeros keep its place.
        sized = header % f"CompressedDataSize = %0{_SIZE_DIGITS}d\n"
        begin = stream.write((sized % 0).encode())
        deflate = zlib.compressobj(_ZLIB_LEVEL)
        for frame in frames:
            stream.write(deflate.compress(np.ascontiguousarray(frame).data))
        stream.write(deflate.flush())
        size = stream.tell() - begin
        stream.seek(0)
        stream.write((sized % size).encode())


def write_video(cine: Cine, path: Path) -> None:
    """Write a sweep as grey video: lossless FFV1 where the name ends in `.avi`, lossy MPEG-4 where in `.mp4`.

    Neither states the size of its pixels.

    Raises:
        InputError: a side of the pictures is odd, whose last line OpenCV would leave out without a word.
        OutputError: the file exists, its name ends otherwise, or it cannot be written.
    """
    codec = _CODECS.get(path.suffix.lower())
    if codec is None:
        raise OutputError(f"{path} ends in neither of {', '.join(_CODECS)}; name it so.")
    height, width = cine.frames.shape[1:]
    if height % 2 or width % 2:
        raise InputError(f"Pictures of {width} x {height} pixels cannot be video; crop them to even sides.")
    lossless = codec == "FFV1"
    with _new_file(path) as partial:
        writer = cv2.VideoWriter(
            str(partial.absolute()),
            cv2.CAP_FFMPEG,
            cv2.VideoWriter.fourcc(*codec),
            cine.frames_per_s,
            (width, height),
            isColor=not lossless,
        )
        try:
            if not writer.isOpened():
                raise OutputError(f"{path} cannot be written as {codec}; check the folder and OpenCV's installation.")
            for frame in cine.frames:
                writer.write(frame if lossless else cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR))
        finally:
            writer.release()


def write_dicom(
    cine: Cine,
    path: Path,
    *,
    name: str,
    region_px: tuple[int, int, int, int] | None = None,
    annotated: bool = False,
) -> None:
    """Write a sweep as an uncompressed ultrasound multi-frame with one calibrated 2-D tissue region (PS3.3, C.8.5.5).

    Args:
        cine: the sweep.
        path: the file.
        name: name of the simulated patient, from which the UIDs are derived, so that the same exam has the same bytes.
        region_px: columns and rows of the tissue, as left, top and, after the last, right, bottom; None for all.
        annotated: whether text is burnt into the pictures, which readers must be told of.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    refuse_existing(path)
    stream = io.BytesIO()
    _dataset(cine, name, region_px, annotated=annotated).save_as(stream, enforce_file_format=True)
    with as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, stream.getvalue())


def _dataset(cine: Cine, name: str, region_px: tuple[int, int, int, int] | None, *, annotated: bool) -> FileDataset:
    from pydicom.dataset import Dataset, FileDataset, FileMetaDataset  # noqa: PLC0415 - slow to import
    from pydicom.uid import UID, generate_uid  # noqa: PLC0415 - likewise

    def uid(of: str) -> Any:  # noqa: ANN401 - pydicom's own type is imported here only
        return generate_uid(_UID_ROOT, [name, of])

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = UID(_ULTRASOUND_MULTIFRAME)
    meta.MediaStorageSOPInstanceUID = uid("instance")
    meta.TransferSyntaxUID = UID(_LITTLE_ENDIAN)
    file = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    count, height, width = cine.frames.shape
    file.update(
        _attributes(
            SOPClassUID=_ULTRASOUND_MULTIFRAME, SOPInstanceUID=meta.MediaStorageSOPInstanceUID, Modality="US",
            PatientName=f"{name}^Simulated", PatientID=name, PatientBirthDate="", PatientSex="",
            StudyInstanceUID=uid("study"), StudyID="", StudyDate="", StudyTime="", AccessionNumber="",
            ReferringPhysicianName="", SeriesInstanceUID=uid("series"), SeriesNumber=1, InstanceNumber=1,
            PatientOrientation="", Laterality="", Manufacturer="edgefetal phantom", ImageType=["ORIGINAL", "PRIMARY"],
            BurnedInAnnotation="YES" if annotated else "NO", LossyImageCompression="00",
            Rows=height, Columns=width, NumberOfFrames=count, SamplesPerPixel=1,
            PhotometricInterpretation="MONOCHROME2", BitsAllocated=8, BitsStored=8, HighBit=7, PixelRepresentation=0,
            FrameIncrementPointer=0x00181063, FrameTime=f"{1000 / cine.frames_per_s:.6g}",
        )
    )  # fmt: skip
    left, top, right, bottom = region_px or (0, 0, width, height)
    region: Dataset = _attributes(
        RegionSpatialFormat=1, RegionDataType=1, RegionFlags=0,
        RegionLocationMinX0=left, RegionLocationMinY0=top, RegionLocationMaxX1=right - 1,
        RegionLocationMaxY1=bottom - 1, PhysicalUnitsXDirection=3, PhysicalUnitsYDirection=3,
        PhysicalDeltaX=cine.x_mm_per_px / _MM_PER_CM, PhysicalDeltaY=cine.y_mm_per_px / _MM_PER_CM,
    )  # fmt: skip
    file.SequenceOfUltrasoundRegions = [region]
    content = cine.frames.tobytes()
    # An element has an even number of bytes.
    file.PixelData = content + b"\0" * (len(content) % 2)
    file["PixelData"].VR = "OB"
    return file


def _attributes(**values: object) -> Any:  # noqa: ANN401 - see _dataset
    from pydicom.dataset import Dataset  # noqa: PLC0415 - slow to import

    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def write_acouslic_exam(
    folder: Path,
    uuid: str,
    frames: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
    masks: npt.NDArray[np.uint8] | Sequence[npt.NDArray[np.uint8]],
) -> None:
    """Write an exam's stack of all six sweeps and that of its masks; the exam counts once the table has its row.

    Args:
        folder: root of the dataset.
        uuid: name of the exam's files.
        frames: shape (N, H, W), uint8, N a multiple of six, or a sequence that makes each frame when asked.
        masks: likewise, 0, 1 (optimal) or 2 (suboptimal).

    Raises:
        InputError: the numbers or the sizes of frames do not fit.
        OutputError: a file exists or cannot be written.
    """
    if len(frames) == 0 or len(frames) != len(masks) or len(frames) % ACOUSLIC_SWEEPS:
        raise InputError(
            f"{len(frames)} frames and {len(masks)} masks are not {ACOUSLIC_SWEEPS} sweeps; give as many of both."
        )
    if frames[0].shape != masks[0].shape:
        raise InputError(f"Frames of {frames[0].shape} and masks of {masks[0].shape} pixels do not fit together.")
    spacing = (ACOUSLIC_SPACING_MM,) * 3
    # The masks first: an image without its mask is what a reader would trip over.
    write_stack(masks, folder / ACOUSLIC_MASKS / f"{uuid}.mha", spacing, compressed=True)
    write_stack(frames, folder / ACOUSLIC_IMAGES / f"{uuid}.mha", spacing, compressed=True)


def write_acouslic_table(folder: Path, rows: Iterable[SweepCircumferences]) -> None:
    """Write the circumferences of every exam; an empty cell is a sweep without an annotated abdomen.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["uuid", "subject_id", *(f"sweep_{k}_ac_mm" for k in range(1, ACOUSLIC_SWEEPS + 1))])
    for row in rows:
        table.writerow([row.uuid, row.subject_id, *("" if mm is None else f"{mm:.4f}" for mm in row.ac_mm)])
    path = folder / ACOUSLIC_TABLE
    refuse_existing(path)
    with as_output_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, text.getvalue().encode())


def write_hc18(folder: Path, heads: Iterable[HeadPicture]) -> None:
    """Write a folder in HC18's layout: pictures with filled masks, and the table of pixel sizes and circumferences.

    The masks' edge lies as far outside the outline as HC18's does.

    Raises:
        OutputError: the folder exists or cannot be written.
    """
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["filename", "pixel size(mm)", "head circumference (mm)"])
    with new_folder(folder) as partial:
        with as_output_error(folder):
            (partial / FOLDER).mkdir()
        for head in heads:
            path = partial / FOLDER / head.name
            write_png(head.pixels, path)
            write_png(_hc18_mask(head), path.with_name(path.stem + ANNOTATION_SUFFIX))
            hc_mm = head.head_px.circumference() * head.mm_per_px
            table.writerow([head.name, f"{head.mm_per_px:.12g}", f"{hc_mm:.2f}"])
        write_file(partial / TABLE, text.getvalue().encode())


def _hc18_mask(head: HeadPicture) -> npt.NDArray[np.uint8]:
    height, width = head.pixels.shape
    # Contour pixels of a filled mask lie half a pixel inside its edge.
    edge = head.head_px.grown(MASK_EDGE_OFFSET_PX + 0.5)
    u, v = edge.normalised(np.arange(width, dtype=float)[None, :], np.arange(height, dtype=float)[:, None])
    return np.where(u**2 + v**2 < 1, 255, 0).astype(np.uint8)


def write_png(pixels: npt.NDArray[np.uint8], path: Path) -> None:
    """Write one grey picture.

    Raises:
        OutputError: the file exists or cannot be written.
    """
    refuse_existing(path)
    done, content = cv2.imencode(".png", pixels)
    if not done:
        raise OutputError(f"{path} cannot be written as PNG; check OpenCV's installation.")
    write_file(path, content.tobytes())
