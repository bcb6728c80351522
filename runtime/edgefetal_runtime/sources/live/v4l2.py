"""Capture cards and cameras by Linux's video interface, streaming by mapped buffers.

https://docs.kernel.org/userspace-api/media/v4l/capture.c.html shows the order of calls.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import math
import os
import select
import time
from typing import TYPE_CHECKING

import numpy as np

from edgefetal_devices.errors import SourceError
from edgefetal_runtime.sources.live import v4l2_abi as abi
from edgefetal_runtime.sources.live.camera import Break, Captured, PictureFormat, Torn
from edgefetal_runtime.sources.live.v4l2_device import Device, KernelDevice

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from edgefetal_runtime.sources.live.address import V4l2Address

# What needs no decoding goes first; where a card gives it too slowly, `?format=MJPG` asks for the other.
_PREFERENCE = ("GREY", "YUYV", "NV12", "UYVY", "MJPG")
_YUV = ("YUYV", "NV12", "UYVY")
_BYTES_PER_PIXEL = {"GREY": 1.0, "YUYV": 2.0, "UYVY": 2.0, "NV12": 1.5}
_WHOLE_FRAMES = (abi.FIELD_NONE, abi.FIELD_INTERLACED, abi.FIELD_INTERLACED_TB, abi.FIELD_INTERLACED_BT)
_BUFFERS = 4
_MAX_FORMATS = 64
# Drivers without a call answer ENOTTY, those whose input has no such thing ENODATA or EINVAL.
_NOT_OFFERED = (errno.ENOTTY, errno.ENODATA, errno.EINVAL)
# No cable, an unsteady signal, and timings that the card cannot take.
_NO_TIMINGS = (errno.ENOLINK, errno.ENOLCK, errno.ERANGE)
_HOPELESS = select.POLLERR | select.POLLHUP | select.POLLNVAL
# Black and white are 16 and 235 where luma has its limited range (ITU-R BT.601); files are decoded to 0 and 255 too.
_FULL_RANGE = np.clip(np.rint((np.arange(256) - 16) * (255 / 219)), 0, 255).astype(np.uint8)
_JPEG_END = b"\xff\xd9"
_REMEDY = {
    errno.ENOENT: "is not there; plug the capture card in",
    errno.ENODEV: "is not there; plug the capture card in",
    errno.ENXIO: "is not there; plug the capture card in",
    errno.EACCES: "may not be opened; add this user to the group `video`",
    errno.EBUSY: "is used by another program; close that one",
}


class V4l2Camera:
    """A video device that streams.

    Args:
        address: which, and what to ask of it.
        device: the calls into the kernel.
        clock: CLOCK_MONOTONIC, for drivers that stamp frames with another clock.
    """

    def __init__(
        self, address: V4l2Address, device: Device | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Open nothing yet."""
        self._address = address
        self._device = device or KernelDevice()
        self._clock = clock
        self._form = abi.Format()
        self._code = ""
        self._handles: list[int] = []
        self._streams = False

    def open(self) -> PictureFormat | Break:
        """Open it and begin to stream; see `Camera.open`.

        Raises:
            SourceError: it is not there, is in use, or gives no picture that can be read.
        """
        try:
            self._device.open(self._address.device)
            self._check_capabilities()
            if not self._has_signal(take_timings=True):
                return Break.NO_SIGNAL
            self._negotiate()
            self._stream()
        except OSError as error:
            raise self._lost(error) from error
        fps = self._frames_per_s()
        return PictureFormat(self._form.width, self._form.height, self._code, fps)

    def read(self, timeout_s: float) -> Captured | Torn | Break | None:
        """Return the next frame; see `Camera.read`.

        Raises:
            SourceError: the device is gone.
        """
        try:
            ready = self._device.poll(timeout_s)
            if ready & select.POLLPRI and (broken := self._event()):
                return broken
            if ready & select.POLLIN:
                return self._dequeue()
            # Drivers without events show a lost signal by sending nothing.
            if not ready and not self._has_signal(take_timings=False):
                return Break.NO_SIGNAL
        except OSError as error:
            # A frame that was announced and is gone again, as after an event.
            if error.errno == errno.EAGAIN:
                return None
            raise self._lost(error) from error
        if ready & _HOPELESS:
            raise self._refuse("went away or stopped streaming; check its plug")
        return None

    def close(self) -> None:
        """Stop, unmap and close, whatever fails on the way: buffers that stay mapped keep a device busy for ever."""
        if self._streams:
            self._streams = False
            with contextlib.suppress(OSError):
                self._device.ioctl(abi.STREAMOFF, ctypes.c_int(abi.BUF_TYPE_VIDEO_CAPTURE))
        self._device.unmap_all()
        if self._handles:
            self._handles.clear()
            with contextlib.suppress(OSError):
                request = abi.RequestBuffers(count=0, type=abi.BUF_TYPE_VIDEO_CAPTURE, memory=abi.MEMORY_MMAP)
                self._device.ioctl(abi.REQBUFS, request)
        self._device.close()

    def _refuse(self, why: str) -> SourceError:
        return SourceError(f"{self._address.device} {why}.")

    def _lost(self, error: OSError) -> SourceError:
        failed = f"failed ({os.strerror(error.errno or 0)}); unplug the capture card and plug it in again"
        return self._refuse(_REMEDY.get(error.errno or 0, failed))

    def _check_capabilities(self) -> None:
        found = abi.Capability()
        self._device.ioctl(abi.QUERYCAP, found)
        caps = found.device_caps if found.capabilities & abi.CAP_DEVICE_CAPS else found.capabilities
        if caps & abi.CAP_VIDEO_CAPTURE and caps & abi.CAP_STREAMING:
            return
        if caps & abi.CAP_VIDEO_CAPTURE_MPLANE:
            raise self._refuse("gives its picture in several planes, which is not read; use a USB capture card")
        raise self._refuse("is no video input; a card often has two devices, try the other")

    def _has_signal(self, *, take_timings: bool) -> bool:
        """Ask the input, and the receiver of a digital signal; True where neither says.

        Args:
            take_timings: set the receiver to what it found, which must be done before a format is chosen.
        """
        number, timings = ctypes.c_int(), abi.DvTimings()
        try:
            self._device.ioctl(abi.G_INPUT, number)
            asked = abi.Input(index=number.value)
            self._device.ioctl(abi.ENUMINPUT, asked)
            if asked.status & abi.IN_ST_NO_PICTURE:
                return False
            self._device.ioctl(abi.QUERY_DV_TIMINGS, timings)
            if take_timings:
                self._device.ioctl(abi.S_DV_TIMINGS, timings)
        except OSError as error:
            if error.errno in _NO_TIMINGS:
                return False
            if error.errno not in _NOT_OFFERED:
                raise
        return True

    def _offered(self) -> set[str]:
        codes = {abi.fourcc(code): code for code in _PREFERENCE}
        offered = set()
        for index in range(_MAX_FORMATS):
            description = abi.FormatDescription(index=index, type=abi.BUF_TYPE_VIDEO_CAPTURE)
            try:
                self._device.ioctl(abi.ENUM_FMT, description)
            except OSError as error:
                if error.errno == errno.EINVAL:
                    break
                raise
            if description.pixelformat in codes:
                offered.add(codes[description.pixelformat])
        return offered

    def _negotiate(self) -> None:
        """Settle on a pixel format and a size; the driver may answer with others than were asked for."""
        offered = self._offered()
        wanted = (self._address.pixel_format,) if self._address.pixel_format else _PREFERENCE
        self._code = next((code for code in wanted if code in offered), "")
        if not self._code:
            remedy = "leave the format out" if self._address.pixel_format else "use another card"
            raise self._refuse(f"does not give {' or '.join(wanted)}; {remedy}")
        form = abi.Format(type=abi.BUF_TYPE_VIDEO_CAPTURE)
        self._device.ioctl(abi.G_FMT, form)
        if self._address.size_px:
            form.width, form.height = self._address.size_px
        form.pixelformat = abi.fourcc(self._code)
        form.field = abi.FIELD_ANY
        form.bytesperline = form.sizeimage = 0
        form.priv = abi.PIX_FMT_PRIV_MAGIC
        self._device.ioctl(abi.S_FMT, form)
        if form.pixelformat != abi.fourcc(self._code):
            raise self._refuse(f"offers {self._code} and does not give it; ask for another with ?format=")
        if self._address.size_px and (form.width, form.height) != self._address.size_px:
            width_px, height_px = self._address.size_px
            why = f"gives {form.width} x {form.height} instead of {width_px} x {height_px}; ask for a size that it has"
            raise self._refuse(why)
        if form.field not in _WHOLE_FRAMES:
            raise self._refuse("gives half frames (fields); use a card that gives whole ones")
        self._form = form

    def _stream(self) -> None:
        request = abi.RequestBuffers(count=_BUFFERS, type=abi.BUF_TYPE_VIDEO_CAPTURE, memory=abi.MEMORY_MMAP)
        self._device.ioctl(abi.REQBUFS, request)
        if not request.count:
            raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))
        for index in range(request.count):
            buffer = self._buffer(index)
            self._device.ioctl(abi.QUERYBUF, buffer)
            self._handles.append(self._device.map(buffer.length, buffer.offset))
            self._device.ioctl(abi.QBUF, self._buffer(index))
        with contextlib.suppress(OSError):
            # Few drivers have it; without, a change shows as frames that end.
            self._device.ioctl(abi.SUBSCRIBE_EVENT, abi.EventSubscription(type=abi.EVENT_SOURCE_CHANGE))
        self._device.ioctl(abi.STREAMON, ctypes.c_int(abi.BUF_TYPE_VIDEO_CAPTURE))
        self._streams = True

    def _frames_per_s(self) -> float | None:
        parameters = abi.StreamParameters(type=abi.BUF_TYPE_VIDEO_CAPTURE)
        try:
            self._device.ioctl(abi.G_PARM, parameters)
        except OSError:
            return None
        if not parameters.seconds_numerator or not parameters.seconds_denominator:
            return None
        return float(parameters.seconds_denominator / parameters.seconds_numerator)

    def _buffer(self, index: int = 0) -> abi.Buffer:
        return abi.Buffer(index=index, type=abi.BUF_TYPE_VIDEO_CAPTURE, memory=abi.MEMORY_MMAP)

    def _event(self) -> Break | None:
        event = abi.Event()
        self._device.ioctl(abi.DQEVENT, event)
        return Break.FORMAT_CHANGED if event.type == abi.EVENT_SOURCE_CHANGE else None

    def _dequeue(self) -> Captured | Torn:
        buffer = self._buffer()
        try:
            self._device.ioctl(abi.DQBUF, buffer)
        except OSError as error:
            # The buffer may be lost; the frame is. A driver that gives no more is noticed by its silence.
            if error.errno == errno.EIO:
                return Torn(None)
            raise
        content = b"" if buffer.flags & abi.BUF_FLAG_ERROR else self._device.read(buffer.index, buffer.bytesused)
        self._device.ioctl(abi.QBUF, self._buffer(buffer.index))
        grey = self._grey(content)
        if grey is None:
            return Torn(buffer.sequence)
        monotonic = buffer.flags & abi.BUF_FLAG_TIMESTAMP_MASK == abi.BUF_FLAG_TIMESTAMP_MONOTONIC
        device_s = buffer.seconds + buffer.microseconds * 1e-6 if monotonic else self._clock()
        return Captured(grey, buffer.sequence, device_s)

    def _grey(self, content: bytes) -> npt.NDArray[np.uint8] | None:
        """Take the brightness of a frame; None where it is not whole."""
        width_px, height_px = self._form.width, self._form.height
        if self._code == "MJPG":
            return _decoded(content, (height_px, width_px))
        packed = 2 if self._code in {"YUYV", "UYVY"} else 1
        stride = max(self._form.bytesperline, width_px * packed)
        whole = math.ceil(stride * height_px * _BYTES_PER_PIXEL[self._code] / packed)
        if len(content) < whole:
            return None
        rows = np.frombuffer(content, np.uint8, stride * height_px).reshape(height_px, stride)
        first = 1 if self._code == "UYVY" else 0
        luma = np.ascontiguousarray(rows[:, first : first + packed * width_px : packed][:, :width_px])
        return np.take(_FULL_RANGE, luma) if self._limited() else luma

    def _limited(self) -> bool:
        """Tell whether luma has its limited range, as <linux/videodev2.h> says what is meant where nothing is said."""
        stated = self._form.quantization if self._form.priv == abi.PIX_FMT_PRIV_MAGIC else abi.QUANTIZATION_DEFAULT
        if stated == abi.QUANTIZATION_DEFAULT:
            return self._code in _YUV and self._form.colorspace != abi.COLORSPACE_JPEG
        return bool(stated == abi.QUANTIZATION_LIM_RANGE)


def _decoded(content: bytes, shape: tuple[int, int]) -> npt.NDArray[np.uint8] | None:
    """Decode a JPEG picture of that shape; None where it is not whole."""
    # A picture without its end mark decodes to half a picture and grey; cards pad what follows with zeros.
    if not content.rstrip(b"\0").endswith(_JPEG_END):
        return None
    import cv2  # noqa: PLC0415 - only some cards need it, and the child must start fast

    grey = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_GRAYSCALE)
    return np.asarray(grey, np.uint8) if grey is not None and grey.shape == shape else None
