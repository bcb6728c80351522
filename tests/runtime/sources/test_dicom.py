"""DICOM: each 2-D tissue region is a sweep with its own pixel size; what is unclear is refused, and nobody is named."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from pydicom import Dataset, FileMetaDataset, dcmread, dcmwrite
from pydicom.data import get_testdata_file
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    MediaStorageDirectoryStorage,
    RLELossless,
    UltrasoundMultiFrameImageStorage,
)

from edgefetal_devices.errors import EdgeFetalError, ScaleError, SourceError
from edgefetal_runtime.scale import NoScale, Scale
from edgefetal_runtime.sources.dicom import has_dicom_mark, jpeg_size, open_dicom
from edgefetal_runtime.sources.scale_wish import ScaleWish
from edgefetal_runtime.sources.source import open_source

if TYPE_CHECKING:
    from pathlib import Path

FRAMES, HEIGHT, WIDTH = 3, 40, 60
_NOISE = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT, WIDTH), dtype=np.uint8)
PIXELS = np.stack([cv2.GaussianBlur(frame, (0, 0), 2.0) for frame in _NOISE])
FAR_APART = ((0, 0, 29, 39), (30, 0, 59, 39))


def _region(
    box: tuple[int, int, int, int] = (10, 5, 49, 34), delta_cm: tuple[float, float] = (0.02, -0.03), **changes: object
) -> Dataset:
    region = Dataset()
    region.RegionSpatialFormat, region.RegionDataType, region.RegionFlags = 1, 1, 0
    region.RegionLocationMinX0, region.RegionLocationMinY0 = box[:2]
    region.RegionLocationMaxX1, region.RegionLocationMaxY1 = box[2:]
    region.PhysicalUnitsXDirection = region.PhysicalUnitsYDirection = 3
    region.PhysicalDeltaX, region.PhysicalDeltaY = delta_cm
    for keyword, value in changes.items():
        setattr(region, keyword, value)
    return region


def _dataset(**changes: Any) -> Dataset:
    """A small cine, with attributes changed or (None) left out."""
    dataset = Dataset()
    fields = {
        "SOPClassUID": UltrasoundMultiFrameImageStorage,
        "SOPInstanceUID": "1.2.3",
        "Modality": "US",
        "PatientName": "Nobody^Real",
        "PatientID": "SECRET-7",
        "NumberOfFrames": FRAMES,
        "Rows": HEIGHT,
        "Columns": WIDTH,
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "BitsAllocated": 8,
        "BitsStored": 8,
        "HighBit": 7,
        "PixelRepresentation": 0,
        "FrameTime": "40",
        "SequenceOfUltrasoundRegions": [_region()],
        "PixelData": PIXELS.tobytes(),
    } | changes
    for keyword, value in fields.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def _content(dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.get("SOPClassUID", "1.2")
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    stream = io.BytesIO()
    dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def _write(folder: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian, name: str = "sweep.dcm") -> Path:
    path = folder / name
    path.write_bytes(_content(dataset, syntax))
    return path


def _jpeg(frames: list[bytes], **changes: Any) -> Dataset:
    dataset = _dataset(**({"PixelData": encapsulate(frames)} | changes))
    dataset["PixelData"].VR = "OB"
    return dataset


def test_a_region_is_cut_out_of_every_frame_with_its_own_pixel_size(tmp_path: Path) -> None:
    source = open_dicom(_write(tmp_path, _dataset()))
    frames = list(source.frames())
    assert (source.kind, source.frame_count, len(frames)) == ("dicom", 3, 3)
    for index, frame in enumerate(frames):
        np.testing.assert_array_equal(frame.pixels, PIXELS[index, 5:35, 10:50])
        assert (frame.sweep, frame.index, frame.origin_px) == ("sweep.dcm", index, (10, 5))
        assert frame.timestamp_s == pytest.approx(0.04 * index)
        assert isinstance(frame.scale, Scale)
        assert (frame.scale.x_mm_per_px, frame.scale.y_mm_per_px) == pytest.approx((0.2, 0.3))
        assert frame.scale.origin == "DICOM region 1 of sweep.dcm"


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_plain_pixels_are_read_in_every_byte_order(tmp_path: Path, syntax: str) -> None:
    dataset = _dataset(SequenceOfUltrasoundRegions=None)
    path = tmp_path / "a.dcm"
    if syntax == ExplicitVRBigEndian:
        dataset["PixelData"].VR = "OB"
    path.write_bytes(_content(dataset, syntax))
    np.testing.assert_array_equal(np.stack([f.pixels for f in open_dicom(path).frames()]), PIXELS)


def test_run_length_coding_is_read_bit_for_bit(tmp_path: Path) -> None:
    dataset = _dataset(SequenceOfUltrasoundRegions=None)
    _content(dataset)
    dataset.compress(RLELossless, encoding_plugin="pydicom")
    path = _write(tmp_path, dataset, RLELossless)
    np.testing.assert_array_equal(np.stack([f.pixels for f in open_dicom(path).frames()]), PIXELS)


def test_jpeg_baseline_is_read_without_a_plug_in(tmp_path: Path) -> None:
    frames = [cv2.imencode(".jpg", frame, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes() for frame in PIXELS]
    read = [f.pixels for f in open_dicom(_write(tmp_path, _jpeg(frames), JPEGBaseline8Bit)).frames()]
    assert np.abs(np.stack(read).astype(int) - PIXELS[:, 5:35, 10:50]).max() <= 4


def test_a_jpeg_picture_of_another_size_than_the_header_says_is_never_decoded(tmp_path: Path) -> None:
    good = cv2.imencode(".jpg", PIXELS[0])[1].tobytes()
    huge = bytearray(good)
    start = huge.index(b"\xff\xc0") + 5
    huge[start : start + 4] = b"\xff\xdc\xff\xdc"
    assert jpeg_size(bytes(huge)) == (65_500, 65_500)
    assert jpeg_size(good) == (WIDTH, HEIGHT)
    path = _write(tmp_path, _jpeg([good, bytes(huge), good]), JPEGBaseline8Bit)
    frames = open_dicom(path).frames()
    assert next(frames).index == 0
    with pytest.raises(SourceError, match="header says 60 x 40"):
        next(frames)


def test_colour_becomes_luma_and_monochrome1_is_turned_round(tmp_path: Path) -> None:
    colour = np.full((FRAMES, HEIGHT, WIDTH, 3), (50, 200, 10), np.uint8)
    rgb = {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PixelData": colour.tobytes()}
    frame = next(open_dicom(_write(tmp_path, _dataset(PhotometricInterpretation="RGB", **rgb))).frames())
    luma = 0.299 * 50 + 0.587 * 200 + 0.114 * 10
    assert np.abs(frame.pixels - luma).max() <= 1
    ybr = cv2.cvtColor(colour[0], cv2.COLOR_RGB2YCrCb)[:, :, (0, 2, 1)]
    rgb["PixelData"] = np.stack([ybr] * FRAMES).tobytes()
    frame = next(open_dicom(_write(tmp_path, _dataset(PhotometricInterpretation="YBR_FULL", **rgb))).frames())
    assert np.abs(frame.pixels - luma).max() <= 2
    frame = next(open_dicom(_write(tmp_path, _dataset(PhotometricInterpretation="MONOCHROME1"))).frames())
    np.testing.assert_array_equal(frame.pixels, 255 - PIXELS[0, 5:35, 10:50])


def test_every_tissue_region_is_a_sweep_with_its_own_scale_and_the_others_are_none(tmp_path: Path) -> None:
    regions = [
        _region(FAR_APART[0], (0.02, 0.02)),
        _region((0, 0, 59, 39), RegionDataType=2),  # colour over the first
        _region(FAR_APART[1], (0.01, 0.01)),
        _region((0, 0, 59, 39), RegionSpatialFormat=2),  # M-mode
    ]
    source = open_dicom(_write(tmp_path, _dataset(SequenceOfUltrasoundRegions=regions)))
    frames = list(source.frames())
    assert source.frame_count == len(frames) == 6
    seen = [(f.sweep, f.origin_px, f.scale.x_mm_per_px if f.scale else None) for f in frames]
    assert seen == [("sweep.dcm#region-1", (0, 0), 0.2)] * 3 + [("sweep.dcm#region-3", (30, 0), 0.1)] * 3


@pytest.mark.parametrize(
    "box",
    [
        (10, 5, 61, 34),
        (10, 5, 49, 41),
        (60, 5, 70, 34),
        (49, 5, 10, 34),
        (10, 34, 49, 5),
        (10, 5, 10, 34),
        (9, 9, 9, 9),
    ],
    ids=["wide", "high", "outside", "inverted x", "inverted y", "one column", "one pixel"],
)
def test_an_impossible_region_is_refused(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    with pytest.raises(SourceError, match=r"region 1, spans columns .* export the original"):
        open_dicom(_write(tmp_path, _dataset(SequenceOfUltrasoundRegions=[_region(box)])))


@pytest.mark.parametrize("last", [(59, 39), (60, 40)])
def test_a_last_column_given_as_the_one_after_it_is_understood(tmp_path: Path, last: tuple[int, int]) -> None:
    path = _write(tmp_path, _dataset(SequenceOfUltrasoundRegions=[_region((0, 0, *last))]))
    assert next(open_dicom(path).frames()).pixels.shape == (HEIGHT, WIDTH)


@pytest.mark.parametrize("second", [FAR_APART[0], (20, 10, 59, 39), (5, 5, 20, 20)])
def test_regions_that_overlap_are_refused(tmp_path: Path, second: tuple[int, int, int, int]) -> None:
    regions = [_region(FAR_APART[0]), _region(second, (0.01, 0.01))]
    with pytest.raises(SourceError, match=r"#region-1 and .*#region-2 overlap"):
        open_dicom(_write(tmp_path, _dataset(SequenceOfUltrasoundRegions=regions)))


def test_neighbours_that_share_a_line_do_not_overlap(tmp_path: Path) -> None:
    regions = [_region((0, 0, 30, 39)), _region((30, 0, 59, 39))]
    assert len(open_dicom(_write(tmp_path, _dataset(SequenceOfUltrasoundRegions=regions))).regions) == 2


@pytest.mark.parametrize("changes", [{"PhysicalUnitsXDirection": 4}, {"PhysicalUnitsYDirection": 0}])
def test_a_region_that_is_not_in_centimetres_has_no_scale(tmp_path: Path, changes: dict[str, int]) -> None:
    frame = next(open_dicom(_write(tmp_path, _dataset(SequenceOfUltrasoundRegions=[_region(**changes)]))).frames())
    assert isinstance(frame.scale, NoScale)
    assert "not in centimetres" in frame.scale.reason


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (("PhysicalDeltaX",), "it has no PhysicalDeltaX)"),
        (("PhysicalDeltaX", "PhysicalDeltaY"), "it has no PhysicalDeltaX and no PhysicalDeltaY)"),
    ],
)
@pytest.mark.parametrize("empty", [False, True])
def test_a_lone_region_without_pixel_sizes_gives_the_whole_picture_and_takes_a_figure(
    tmp_path: Path,
    missing: tuple[str, ...],
    says: str,
    empty: bool,  # noqa: FBT001 - parametrised
) -> None:
    region = _region()
    for keyword in missing:
        if empty:
            setattr(region, keyword, None)
        else:
            delattr(region, keyword)
    path = _write(tmp_path, _dataset(SequenceOfUltrasoundRegions=[region]))
    frame = next(open_source(path).frames())
    assert (frame.sweep, frame.pixels.shape, frame.origin_px) == ("sweep.dcm", (HEIGHT, WIDTH), (0, 0))
    assert isinstance(frame.scale, NoScale)
    assert "region 1, is not calibrated" in frame.scale.reason
    assert says in frame.scale.reason
    assert "give --mm-per-px" in frame.scale.reason
    given = Scale(0.2, 0.3, "command line")
    assert next(open_source(path, ScaleWish(stated=given)).frames()).scale == given


@pytest.mark.parametrize("lack", [{"PhysicalUnitsXDirection": 4}, {"PhysicalDeltaX": None}])
def test_a_region_without_a_calibration_beside_one_with_it_says_that_no_figure_helps(
    tmp_path: Path, lack: dict[str, int | None]
) -> None:
    regions = [_region(FAR_APART[0], (0.02, 0.02)), _region(FAR_APART[1], **lack)]
    path = _write(tmp_path, _dataset(SequenceOfUltrasoundRegions=regions))
    for wish in (ScaleWish(), ScaleWish(stated=Scale(0.2, 0.2, "command line"))):
        scales = {frame.sweep: frame.scale for frame in open_source(path, wish).frames()}
        assert scales["sweep.dcm#region-1"]
        without = scales["sweep.dcm#region-2"]
        assert isinstance(without, NoScale)
        assert "--mm-per-px is not taken for it" in without.reason
        assert "export it again with every region calibrated" in without.reason


def test_several_regions_without_a_calibration_stay_apart(tmp_path: Path) -> None:
    regions = [_region(box, PhysicalDeltaX=None) for box in FAR_APART]
    source = open_dicom(_write(tmp_path, _dataset(SequenceOfUltrasoundRegions=regions)))
    assert [(region.left_px, region.right_px) for region in source.regions] == [(0, 30), (30, 60)]
    assert all("give --mm-per-px" in region.scale.reason for region in source.regions if not region.scale)


@pytest.mark.parametrize("delta_cm", [(0.0, 0.02), (float("nan"), 0.02), (0.02, float("inf")), (0.5, 0.5)])
def test_a_region_with_an_impossible_pixel_size_is_refused(tmp_path: Path, delta_cm: tuple[float, float]) -> None:
    dataset = _dataset(SequenceOfUltrasoundRegions=[_region(delta_cm=delta_cm)])
    with pytest.raises(ScaleError, match=r"DICOM region 1 of sweep\.dcm"):
        open_dicom(_write(tmp_path, dataset))


def test_pixel_spacing_must_agree_with_the_region(tmp_path: Path) -> None:
    # Rows first: 0.3 mm down, 0.2 mm across.
    assert open_dicom(_write(tmp_path, _dataset(PixelSpacing=[0.3015, 0.1995]))).regions[0].scale
    for spacing in ([0.304, 0.2], [0.2, 0.3], [1, 1]):
        with pytest.raises(ScaleError, match=r"by DICOM region 1 of .* by PixelSpacing of"):
            open_dicom(_write(tmp_path, _dataset(PixelSpacing=spacing)))


def test_a_figure_on_the_command_line_must_agree_with_the_region(tmp_path: Path) -> None:
    path = _write(tmp_path, _dataset())
    (scale,) = {f.scale for f in open_source(path, ScaleWish(stated=Scale(0.2, 0.3, "command line"))).frames()}
    assert isinstance(scale, Scale)
    assert scale.origin == "DICOM region 1 of sweep.dcm"
    with pytest.raises(ScaleError, match=r"by DICOM region 1 of sweep\.dcm and .* by command line"):
        open_source(path, ScaleWish(stated=Scale(0.2, 0.304, "command line")))
    with pytest.raises(ScaleError, match="leave --depth-mm out"):
        open_source(path, ScaleWish(depth_mm=100))


def test_pixel_spacing_alone_is_not_believed_but_must_not_be_contradicted(tmp_path: Path) -> None:
    path = _write(tmp_path, _dataset(SequenceOfUltrasoundRegions=None, PixelSpacing=[0.3, 0.2]))
    frame = next(open_source(path).frames())
    assert frame.pixels.shape == (HEIGHT, WIDTH)
    assert isinstance(frame.scale, NoScale)
    assert "PixelSpacing (0.2 x 0.3 mm) alone does not count" in frame.scale.reason
    given = Scale(0.2, 0.3, "command line")
    assert next(open_source(path, ScaleWish(stated=given)).frames()).scale == given
    with pytest.raises(ScaleError, match=r"by PixelSpacing of sweep\.dcm and .* by command line"):
        open_source(path, ScaleWish(stated=Scale(0.3, 0.2, "command line")))


@pytest.mark.parametrize("regions", [None, [], [_region(RegionDataType=3)]])
def test_without_a_tissue_region_there_is_no_scale_and_the_whole_picture(
    tmp_path: Path, regions: list[Dataset] | None
) -> None:
    changes = {"ImagerPixelSpacing": [0.1, 0.1], "NominalScannedPixelSpacing": [0.1, 0.1]}
    path = _write(tmp_path, _dataset(SequenceOfUltrasoundRegions=regions, **changes))
    frame = next(open_dicom(path).frames())
    assert (frame.pixels.shape, frame.origin_px) == ((HEIGHT, WIDTH), (0, 0))
    assert isinstance(frame.scale, NoScale)
    assert "--mm-per-px" in frame.scale.reason


@pytest.mark.parametrize(
    ("changes", "times_s"),
    [
        ({"FrameTime": "25"}, [0, 0.025, 0.05]),
        ({"FrameTimeVector": ["0", "10", "30"]}, [0, 0.01, 0.04]),
        ({"FrameTimeVector": ["0", "10"], "FrameTime": "20"}, [0, 0.02, 0.04]),
        ({"FrameTime": None, "CineRate": "50"}, [0, 0.02, 0.04]),
        ({"FrameTime": "0", "RecommendedDisplayFrameRate": "10"}, [0, 0.1, 0.2]),
        ({"FrameTime": None}, [0, 1 / 30, 2 / 30]),
    ],
)
def test_times_are_those_that_the_file_states(tmp_path: Path, changes: dict[str, Any], times_s: list[float]) -> None:
    assert open_dicom(_write(tmp_path, _dataset(**changes))).times_s == pytest.approx(times_s)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.2", "Modality": "CT"}, "no ultrasound image"),
        ({"SOPClassUID": MediaStorageDirectoryStorage}, "DICOMDIR"),
        ({"Rows": None}, "holds no picture"),
        ({"Rows": 0}, "no machine makes"),
        ({"NumberOfFrames": 999_999_999}, "no machine makes"),
        ({"NumberOfFrames": -3}, "no machine makes"),
        ({"Rows": 65_000, "Columns": 65_000}, "no machine makes"),
        ({"BitsAllocated": 16, "BitsStored": 12, "HighBit": 11}, "12 bits a pixel in 16; export it with 8"),
        ({"BitsStored": 7, "HighBit": 6}, "7 bits"),
        ({"PixelRepresentation": 1}, "signed"),
        ({"PhotometricInterpretation": "PALETTE COLOR"}, "PALETTE COLOR"),
        ({"PhotometricInterpretation": None}, "None pixels"),
    ],
)
def test_what_is_no_8_bit_ultrasound_is_refused(tmp_path: Path, changes: dict[str, Any], says: str) -> None:
    with pytest.raises(SourceError, match=says):
        open_dicom(_write(tmp_path, _dataset(**changes)))


@pytest.mark.parametrize("syntax", [JPEG2000Lossless, DeflatedExplicitVRLittleEndian])
def test_a_coding_that_is_not_decoded_is_named_with_how_to_convert_it(tmp_path: Path, syntax: str) -> None:
    dataset = _jpeg([b"\xff\x4f"] * FRAMES) if syntax == JPEG2000Lossless else _dataset()
    with pytest.raises(SourceError, match=r"is coded as .*convert it with `gdcmconv --raw` or DCMTK's `dcmdjpeg`"):
        open_dicom(_write(tmp_path, dataset, syntax))


def test_cut_pixels_are_refused_and_say_where(tmp_path: Path) -> None:
    path = _write(tmp_path, _dataset(PixelData=PIXELS[:2].tobytes()))
    with pytest.raises(SourceError, match=r"frame \d"):
        list(open_dicom(path).frames())


def test_a_file_without_the_mark_is_refused_and_one_without_a_suffix_is_known_by_it(tmp_path: Path) -> None:
    bare = _write(tmp_path, _dataset(), name="IM0001")
    assert has_dicom_mark(bare)
    assert open_source(bare).kind == "dicom"
    (tmp_path / "none.dcm").write_bytes(b"DICM" + bytes(200))
    with pytest.raises(SourceError, match="no DICM mark"):
        open_source(tmp_path / "none.dcm")


def test_no_patient_field_is_ever_read(tmp_path: Path) -> None:
    source = open_dicom(_write(tmp_path, _dataset()))
    told = repr(source) + repr([(f.sweep, f.scale) for f in source.frames()])
    assert "Nobody" not in told
    assert "SECRET" not in told


def test_damage_anywhere_is_a_user_error_or_frames(tmp_path: Path) -> None:
    jpeg = [cv2.imencode(".jpg", frame)[1].tobytes() for frame in PIXELS]
    wholes = [_content(_dataset()), _content(_jpeg(jpeg), JPEGBaseline8Bit)]
    rng = np.random.default_rng(1)
    outcomes = set()
    for number in range(500):
        whole = wholes[number % 2]
        damaged = bytearray(whole[: rng.integers(133, len(whole)) if rng.random() < 0.3 else len(whole)])
        for place in rng.integers(128, min(len(damaged), 1200), rng.integers(1, 6)):
            damaged[place] = rng.integers(256)
        path = tmp_path / "damaged.dcm"
        path.write_bytes(bytes(damaged))
        try:
            frames = list(open_dicom(path).frames())
        except EdgeFetalError:
            outcomes.add("refused")
            continue
        outcomes.add("read")
        assert all((f.pixels.ndim, f.pixels.dtype) == (2, np.uint8) for f in frames)
    assert outcomes == {"refused", "read"}


def test_pydicoms_own_cine_was_shrunk_after_it_was_taken_and_says_so(tmp_path: Path) -> None:
    """Its region lies on the 640 x 480 original; without that region its 30 frames are read."""
    example = str(get_testdata_file("examples_ybr_color.dcm", download=False))
    path = tmp_path / "example.dcm"
    dataset = dcmread(example)
    dataset.save_as(path)
    with pytest.raises(SourceError, match=r"columns 84 to 595 .* of a picture of 320 x 240; the picture was resized"):
        open_dicom(path)
    item = dataset.SequenceOfUltrasoundRegions[0]
    item.RegionLocationMinX0, item.RegionLocationMinY0 = 42, 16
    item.RegionLocationMaxX1, item.RegionLocationMaxY1 = 297, 206
    item.PhysicalDeltaX = item.PhysicalDeltaY = 2 * item.PhysicalDeltaX
    dataset.save_as(path)
    frames = list(open_dicom(path).frames())
    assert (len(frames), frames[0].pixels.shape, frames[0].origin_px) == (30, (191, 256), (42, 16))
    assert frames[29].timestamp_s == pytest.approx(29 * 0.033333, rel=1e-4)
    assert isinstance(frames[0].scale, Scale)
    assert frames[0].scale.x_mm_per_px == pytest.approx(1.02099, rel=1e-4)
