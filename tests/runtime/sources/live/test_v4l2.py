"""The V4L2 camera, on a device that keeps the kernel's rules and fails on cue; and the layout of its structures.

No capture card was at hand: how real drivers behave is known only from their documentation.
"""

from __future__ import annotations

import ctypes
import errno
import os
import select
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.sources.live import v4l2_abi as abi
from edgefetal_runtime.sources.live.address import V4l2Address, parse_address
from edgefetal_runtime.sources.live.camera import Break, Captured, PictureFormat, Torn
from edgefetal_runtime.sources.live.child import Recorder, capture
from edgefetal_runtime.sources.live.ring import Board, Stage
from edgefetal_runtime.sources.live.v4l2 import V4l2Camera

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

WIDTH, HEIGHT = 64, 48
STAMPED = abi.BUF_FLAG_TIMESTAMP_MONOTONIC


def _fail(number: int) -> None:
    raise OSError(number, os.strerror(number))


@dataclass
class FakeDevice:
    """A driver in the small: it refuses every call that comes in the wrong order, as the kernel does."""

    codes: tuple[str, ...] = ("YUYV", "MJPG")
    size_px: tuple[int, int] = (WIDTH, HEIGHT)
    padding: int = 0
    order: int = abi.FIELD_NONE
    colorspace: int = abi.COLORSPACE_JPEG
    input_status: int = 0
    no_timings: int = errno.ENOTTY
    capabilities: int = abi.CAP_VIDEO_CAPTURE | abi.CAP_STREAMING
    stamp: int = STAMPED
    plugged: bool = True
    # What a freshly opened device refuses with; once plugged in again the old descriptor answers ENOTTY to all.
    stale: bool = False
    calls: list[int] = field(default_factory=list)
    frames: list[tuple[bytes, int]] = field(default_factory=list)
    events: int = 0
    opened: bool = False
    streams: bool = False
    requested: int = 0
    queued: list[int] = field(default_factory=list)
    mapped: set[int] = field(default_factory=set)
    filled: dict[int, bytes] = field(default_factory=dict)
    sequence: int = 0
    code: str = ""

    def open(self, path: str) -> None:
        assert not self.opened, "opened twice"
        assert path == "/dev/video0"
        if not self.plugged:
            _fail(errno.ENOENT)
        self.opened, self.stale = True, False

    def close(self) -> None:
        assert not self.mapped, "closed with buffers still mapped"
        self.opened = self.streams = False
        self.requested, self.queued = 0, []

    def ioctl(self, request: int, argument: ctypes.Structure | ctypes.c_int) -> None:
        assert self.opened, "called while closed"
        self.calls.append(request)
        if not self.plugged:
            _fail(errno.ENODEV)
        if self.stale:
            _fail(errno.ENOTTY)
        handler = self.handlers.get(request)
        if handler is None:
            _fail(errno.ENOTTY)
        else:
            handler(self, argument)

    def poll(self, timeout_s: float) -> int:
        del timeout_s
        if not self.plugged or self.stale:
            return select.POLLERR | select.POLLHUP
        assert self.streams, "polled before STREAMON"
        return (select.POLLPRI if self.events else 0) | (select.POLLIN if self.frames and self.queued else 0)

    def map(self, length: int, offset: int) -> int:
        assert length > 0
        assert offset % 4096 == 0
        self.mapped.add(offset // 4096)
        return offset // 4096

    def read(self, handle: int, length: int) -> bytes:
        assert handle in self.mapped
        return self.filled[handle][:length]

    def unmap_all(self) -> None:
        self.mapped.clear()

    def _capability(self, argument: abi.Capability) -> None:
        argument.capabilities = self.capabilities

    def _enumerate(self, argument: abi.FormatDescription) -> None:
        if argument.index >= len(self.codes):
            _fail(errno.EINVAL)
        argument.pixelformat = abi.fourcc(self.codes[argument.index])

    def _format(self, argument: abi.Format) -> None:
        code = next((code for code in self.codes if abi.fourcc(code) == argument.pixelformat), self.codes[0])
        argument.width, argument.height = self.size_px
        argument.pixelformat = abi.fourcc(code)
        packed = {"YUYV": 2, "UYVY": 2, "GREY": 1, "NV12": 1, "MJPG": 0}[code]
        argument.bytesperline = self.size_px[0] * packed + (self.padding if packed else 0)
        argument.field, argument.colorspace, argument.priv = self.order, self.colorspace, abi.PIX_FMT_PRIV_MAGIC

    def _set_format(self, argument: abi.Format) -> None:
        if self.requested:
            _fail(errno.EBUSY)
        self._format(argument)
        self.code = next(code for code in self.codes if abi.fourcc(code) == argument.pixelformat)

    def _request(self, argument: abi.RequestBuffers) -> None:
        if self.mapped or self.streams:
            _fail(errno.EBUSY)
        self.requested = argument.count

    def _query(self, argument: abi.Buffer) -> None:
        if argument.index >= self.requested:
            _fail(errno.EINVAL)
        argument.length, argument.offset = 8192, argument.index * 4096

    def _queue(self, argument: abi.Buffer) -> None:
        assert argument.index not in self.queued, "queued twice"
        self.queued.append(argument.index)

    def _dequeue(self, argument: abi.Buffer) -> None:
        if not self.frames or not self.queued:
            _fail(errno.EAGAIN)
        content, flags = self.frames.pop(0)
        if flags < 0:
            _fail(-flags)
        argument.index = self.queued.pop(0)
        self.filled[argument.index] = content
        argument.bytesused, argument.flags, argument.sequence = len(content), flags | self.stamp, self.sequence
        argument.seconds, argument.microseconds = 50, 1000 * self.sequence
        self.sequence += 1

    def _on(self, _: ctypes.c_int) -> None:
        assert self.queued, "STREAMON without a queued buffer"
        self.streams, self.sequence = True, 0

    def _off(self, _: ctypes.c_int) -> None:
        self.streams, self.queued = False, []

    def _parameters(self, argument: abi.StreamParameters) -> None:
        argument.seconds_numerator, argument.seconds_denominator = 1, 25

    def _input(self, argument: abi.Input) -> None:
        argument.status = self.input_status

    def _timings(self, _: abi.DvTimings) -> None:
        if self.no_timings:
            _fail(self.no_timings)

    def _event(self, argument: abi.Event) -> None:
        if not self.events:
            _fail(errno.EAGAIN)
        self.events -= 1
        argument.type = abi.EVENT_SOURCE_CHANGE

    def _nothing(self, _: ctypes.Structure | ctypes.c_int) -> None:
        """Accept it."""

    @property
    def handlers(self) -> dict[int, Callable[..., None]]:
        kind = type(self)
        return {
            abi.QUERYCAP: kind._capability,
            abi.ENUM_FMT: kind._enumerate,
            abi.G_FMT: kind._format,
            abi.S_FMT: kind._set_format,
            abi.REQBUFS: kind._request,
            abi.QUERYBUF: kind._query,
            abi.QBUF: kind._queue,
            abi.DQBUF: kind._dequeue,
            abi.STREAMON: kind._on,
            abi.STREAMOFF: kind._off,
            abi.G_PARM: kind._parameters,
            abi.G_INPUT: kind._nothing,
            abi.ENUMINPUT: kind._input,
            abi.QUERY_DV_TIMINGS: kind._timings,
            abi.S_DV_TIMINGS: kind._nothing,
            abi.SUBSCRIBE_EVENT: kind._nothing,
            abi.DQEVENT: kind._event,
        }


def _camera(device: FakeDevice, options: str = "") -> V4l2Camera:
    address = parse_address(f"v4l2:/dev/video0{options}")
    assert isinstance(address, V4l2Address)
    return V4l2Camera(address, device, clock=lambda: 777.0)


def _picture() -> npt.NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (HEIGHT, WIDTH), dtype=np.uint8)


def _bytes_of(picture: npt.NDArray[np.uint8], code: str, padding: int = 0) -> bytes:
    """Lay a grey picture out as a device does, with chroma that must not show."""
    if code in {"YUYV", "UYVY"}:
        pair = (picture, np.full_like(picture, 99))
        rows = np.stack(pair if code == "YUYV" else pair[::-1], axis=2).reshape(HEIGHT, 2 * WIDTH)
    else:
        rows = picture
    content = np.pad(rows, ((0, 0), (0, padding)), constant_values=55).tobytes()
    return content + bytes([99]) * (len(content) // 2) if code == "NV12" else content


def _jpeg(picture: npt.NDArray[np.uint8]) -> bytes:
    return bytes(cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, 100])[1].tobytes())


@pytest.mark.parametrize("code", ["GREY", "YUYV", "UYVY", "NV12"])
@pytest.mark.parametrize("padding", [0, 16])
def test_luma_is_taken_bit_for_bit_from_padded_rows_too(code: str, padding: int) -> None:
    device = FakeDevice(codes=(code,), padding=padding)
    camera, picture = _camera(device), _picture()
    assert camera.open() == PictureFormat(WIDTH, HEIGHT, code, 25.0)
    device.frames = [(_bytes_of(picture, code, padding), 0)]
    captured = camera.read(0.1)
    assert isinstance(captured, Captured)
    np.testing.assert_array_equal(captured.pixels, picture)
    assert (captured.sequence, captured.device_s) == (0, 50.0)
    camera.close()


def test_the_limited_range_of_luma_is_spread_to_black_and_white() -> None:
    device = FakeDevice(codes=("YUYV",), colorspace=1)
    camera = _camera(device)
    camera.open()
    picture = np.full((HEIGHT, WIDTH), 16, np.uint8)
    picture[0] = 235
    device.frames = [(_bytes_of(picture, "YUYV"), 0)]
    captured = camera.read(0.1)
    assert isinstance(captured, Captured)
    assert set(captured.pixels[0]) == {255}
    assert set(captured.pixels[1:].ravel()) == {0}
    camera.close()


def test_what_needs_no_decoding_is_preferred_and_another_can_be_asked_for() -> None:
    device = FakeDevice(codes=("MJPG", "UYVY", "YUYV"))
    camera = _camera(device)
    camera.open()
    assert device.code == "YUYV"
    camera.close()
    camera = _camera(device, "?format=MJPG")
    assert camera.open() == PictureFormat(WIDTH, HEIGHT, "MJPG", 25.0)
    picture = cv2.GaussianBlur(_picture(), (0, 0), 5)
    device.frames = [(_jpeg(np.asarray(picture, np.uint8)) + bytes(7), 0)]
    captured = camera.read(0.1)
    assert isinstance(captured, Captured)
    np.testing.assert_allclose(captured.pixels, picture, atol=3)
    camera.close()


def test_broken_frames_are_counted_and_never_shown() -> None:
    device = FakeDevice(codes=("YUYV", "MJPG"))
    whole, jpeg = _bytes_of(_picture(), "YUYV"), _jpeg(_picture())
    camera = _camera(device)
    camera.open()
    device.frames = [(whole, abi.BUF_FLAG_ERROR), (whole[:-1], 0), (b"", 0), (whole, -errno.EIO), (whole, 0)]
    got = [camera.read(0.1) for _ in range(5)]
    assert got[:4] == [Torn(0), Torn(1), Torn(2), Torn(None)]
    assert isinstance(got[4], Captured)
    camera.close()
    camera = _camera(device, "?format=MJPG")
    camera.open()
    cuts = np.linspace(0, len(jpeg) - 1, 40).astype(int)
    small = _jpeg(np.asarray(_picture()[:24], np.uint8))
    device.frames = [(jpeg[:cut], 0) for cut in cuts] + [(small, 0), (jpeg, 0)]
    got = [camera.read(0.1) for _ in range(42)]
    assert all(isinstance(torn, Torn) for torn in got[:41])
    assert isinstance(got[41], Captured)
    camera.close()
    print("\n45 torn and truncated frames: 0 shown")  # noqa: T201


def test_a_buffer_is_never_lost_however_many_frames_come() -> None:
    device = FakeDevice(codes=("GREY",))
    camera = _camera(device)
    camera.open()
    for number in range(1000):
        device.frames = [(_bytes_of(_picture(), "GREY"), abi.BUF_FLAG_ERROR * (number % 3 == 0))]
        assert camera.read(0.1) is not None
    assert len(device.queued) == 4
    camera.close()


@pytest.mark.parametrize(
    ("device", "why"),
    [
        (FakeDevice(input_status=2), "no signal at the input"),
        (FakeDevice(no_timings=errno.ENOLINK), "no cable"),
        (FakeDevice(no_timings=errno.ENOLCK), "an unsteady signal"),
        (FakeDevice(no_timings=errno.ERANGE), "timings that the card cannot take"),
    ],
)
def test_a_device_without_a_signal_is_told_from_one_that_is_gone(device: FakeDevice, why: str) -> None:
    camera = _camera(device)
    assert camera.open() is Break.NO_SIGNAL, why
    camera.close()
    device.input_status, device.no_timings = 0, 0
    assert isinstance(camera.open(), PictureFormat)
    # The timings must be set before a format is chosen.
    assert device.calls.index(abi.S_DV_TIMINGS) < device.calls.index(abi.S_FMT)
    assert camera.read(0.1) is None
    device.no_timings = errno.ENOLINK
    assert camera.read(0.1) is Break.NO_SIGNAL
    camera.close()


def test_a_change_of_the_source_is_told_and_the_new_format_is_taken() -> None:
    device = FakeDevice(codes=("GREY",))
    camera = _camera(device)
    camera.open()
    device.events = 1
    assert camera.read(0.1) is Break.FORMAT_CHANGED
    camera.close()
    device.size_px = (32, 24)
    assert camera.open() == PictureFormat(32, 24, "GREY", 25.0)
    camera.close()


@pytest.mark.parametrize(
    ("device", "options", "remedy"),
    [
        (FakeDevice(plugged=False), "", "plug the capture card in"),
        (FakeDevice(capabilities=abi.CAP_VIDEO_CAPTURE_MPLANE | abi.CAP_STREAMING), "", "use a USB capture card"),
        (FakeDevice(capabilities=abi.CAP_STREAMING), "", "try the other"),
        (FakeDevice(codes=("MJPG",)), "?format=GREY", "leave the format out"),
        (FakeDevice(), "?size=1280x720", "gives 64 x 48 instead of 1280 x 720"),
        (FakeDevice(order=7), "", "use a card that gives whole ones"),
        (FakeDevice(no_timings=errno.EIO), "", "unplug the capture card and plug it in again"),
    ],
)
def test_a_device_that_gives_nothing_that_can_be_read_is_refused_with_the_way_out(
    device: FakeDevice, options: str, remedy: str
) -> None:
    camera = _camera(device, options)
    with pytest.raises(SourceError, match=remedy):
        camera.open()
    camera.close()


def test_times_that_are_not_monotonic_are_replaced_by_ours() -> None:
    device = FakeDevice(codes=("GREY",), stamp=0)
    camera = _camera(device)
    camera.open()
    device.frames = [(_bytes_of(_picture(), "GREY"), 0)]
    captured = camera.read(0.1)
    assert isinstance(captured, Captured)
    assert captured.device_s == 777.0
    camera.close()


def test_a_frame_that_is_gone_again_is_no_loss() -> None:
    device = FakeDevice(codes=("GREY",))
    camera = _camera(device)
    camera.open()
    device.frames = [(b"", -errno.EAGAIN)]
    assert camera.read(0.1) is None
    camera.close()


class _Boards:
    """A ring that keeps the last board."""

    def __init__(self) -> None:
        self.last = Board()

    def shows_newest(self, _: npt.NDArray[np.uint8]) -> bool:
        return False

    def post(self, board: Board) -> None:
        self.last = board

    def publish(self, _: npt.NDArray[np.uint8], board: Board) -> None:
        self.last = board


def test_a_card_unplugged_hundreds_of_times_is_let_go_of_whole_each_time() -> None:
    """Unplugged before a frame, within the calls, and plugged in again under an open descriptor (ENOTTY for ever)."""
    device = FakeDevice(codes=("GREY",))
    frame = _bytes_of(_picture(), "GREY")
    calls_of_an_opening = 20
    injections = 0
    for injection in range(400):
        camera, boards = _camera(device), _Boards()
        device.plugged, device.frames = True, [(frame, 0)] * (injection % 5)
        unplug_at = len(device.calls) + injection % (calls_of_an_opening + 10)
        plain_ioctl = type(device).ioctl

        def ioctl(
            request: int,
            argument: ctypes.Structure | ctypes.c_int,
            *,
            at: int = unplug_at,
            replug: bool = injection % 2 == 0,
            plain: Callable[..., None] = plain_ioctl,
        ) -> None:
            if len(device.calls) >= at:
                device.plugged, device.stale = replug, True
            plain(device, request, argument)

        device.ioctl = ioctl  # type: ignore[method-assign]
        capture(camera, Recorder(boards, lambda: None), lambda _: None)  # type: ignore[arg-type]
        camera.close()
        assert boards.last.stage is Stage.FAILED
        assert boards.last.reason.startswith("/dev/video0 ")
        assert not device.opened
        assert not device.mapped
        injections += 1
    print(f"\n{injections} times unplugged within the calls of V4L2: {injections} times let go of whole")  # noqa: T201


SIZES = {
    "v4l2_capability": (abi.Capability, 104),
    "v4l2_fmtdesc": (abi.FormatDescription, 64),
    "v4l2_format": (abi.Format, 208),
    "v4l2_requestbuffers": (abi.RequestBuffers, 20),
    "v4l2_buffer": (abi.Buffer, 88),
    "v4l2_streamparm": (abi.StreamParameters, 204),
    "v4l2_input": (abi.Input, 80),
    "v4l2_dv_timings": (abi.DvTimings, 132),
    "v4l2_event_subscription": (abi.EventSubscription, 32),
    "v4l2_event": (abi.Event, 136),
}
# Ours, and what the header calls it.
PLACES = {
    "v4l2_capability": {"capabilities": "capabilities", "device_caps": "device_caps"},
    "v4l2_fmtdesc": {"pixelformat": "pixelformat"},
    "v4l2_format": {
        name: f"fmt.pix.{name}"
        for name in ("width", "pixelformat", "field", "bytesperline", "sizeimage", "colorspace", "priv", "quantization")
    },
    "v4l2_buffer": {
        "bytesused": "bytesused",
        "flags": "flags",
        "seconds": "timestamp.tv_sec",
        "microseconds": "timestamp.tv_usec",
        "sequence": "sequence",
        "memory": "memory",
        "offset": "m.offset",
        "length": "length",
    },
    "v4l2_streamparm": {"seconds_numerator": "parm.capture.timeperframe.numerator"},
    "v4l2_input": {"status": "status"},
    "v4l2_event": {"changes": "u.src_change.changes", "pending": "pending"},
}
REQUESTS = (
    *("QUERYCAP", "ENUM_FMT", "G_FMT", "S_FMT", "REQBUFS", "QUERYBUF", "QBUF", "DQBUF", "STREAMON", "STREAMOFF"),
    *("G_PARM", "ENUMINPUT", "G_INPUT", "S_DV_TIMINGS", "DQEVENT", "SUBSCRIBE_EVENT", "QUERY_DV_TIMINGS"),
)


def test_structures_have_the_sizes_of_64_bit_linux() -> None:
    assert {name: ctypes.sizeof(ours) for name, (ours, _) in SIZES.items()} == {n: s for n, (_, s) in SIZES.items()}


def test_structures_and_requests_are_those_of_the_kernels_header(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if not compiler or not Path("/usr/include/linux/videodev2.h").is_file():
        pytest.skip("no C compiler with <linux/videodev2.h> here")
    lines = [f'printf("%zu ", sizeof(struct {name}));' for name in SIZES]
    ours = [ctypes.sizeof(structure) for structure, _ in SIZES.values()]
    for name, places in PLACES.items():
        for mine, theirs in places.items():
            lines.append(f'printf("%zu ", offsetof(struct {name}, {theirs}));')
            ours.append(getattr(SIZES[name][0], mine).offset)
    for request in REQUESTS:
        lines.append(f'printf("%lu ", (unsigned long)VIDIOC_{request});')
        ours.append(getattr(abi, request))
    source = "#include <stddef.h>\n#include <stdio.h>\n#include <linux/videodev2.h>\nint main(void) {\n"
    (tmp_path / "abi.c").write_text(source + "\n".join(lines) + "\nreturn 0;}\n")
    subprocess.run([compiler, tmp_path / "abi.c", "-o", tmp_path / "abi"], check=True)
    printed = subprocess.run([tmp_path / "abi"], check=True, capture_output=True, text=True).stdout
    assert [int(figure) for figure in printed.split()] == ours
    print(f"\n{len(ours)} sizes, places and request numbers are those of the kernel's header")  # noqa: T201
