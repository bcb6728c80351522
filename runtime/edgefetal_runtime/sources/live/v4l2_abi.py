"""The part of Linux's video interface that is used, as <linux/videodev2.h> lays it out on 64-bit machines.

Only fields that are read or written are named. A test has the C compiler check sizes, places and request numbers where
there is one.
"""

from __future__ import annotations

import ctypes
from typing import ClassVar

_U32 = ctypes.c_uint32


def fourcc(code: str) -> int:
    """Return V4L2's number of a pixel format."""
    return int.from_bytes(code.encode(), "little")


class Capability(ctypes.Structure):
    """`struct v4l2_capability`."""

    _fields_: ClassVar = [
        ("driver", ctypes.c_char * 16),
        ("card", ctypes.c_char * 32),
        ("bus_info", ctypes.c_char * 32),
        ("version", _U32),
        ("capabilities", _U32),
        ("device_caps", _U32),
        ("reserved", _U32 * 3),
    ]


class FormatDescription(ctypes.Structure):
    """`struct v4l2_fmtdesc`."""

    _fields_: ClassVar = [
        ("index", _U32),
        ("type", _U32),
        ("flags", _U32),
        ("description", ctypes.c_char * 32),
        ("pixelformat", _U32),
        ("reserved", _U32 * 4),
    ]


class Format(ctypes.Structure):
    """`struct v4l2_format` of a single-planar capture: its `pix` is spread out here."""

    _fields_: ClassVar = [
        ("type", _U32),
        ("padding", _U32),
        ("width", _U32),
        ("height", _U32),
        ("pixelformat", _U32),
        ("field", _U32),
        ("bytesperline", _U32),
        ("sizeimage", _U32),
        ("colorspace", _U32),
        ("priv", _U32),
        ("flags", _U32),
        ("ycbcr_enc", _U32),
        ("quantization", _U32),
        ("xfer_func", _U32),
        ("unused", ctypes.c_uint8 * 152),
    ]


class RequestBuffers(ctypes.Structure):
    """`struct v4l2_requestbuffers`."""

    _fields_: ClassVar = [("count", _U32), ("type", _U32), ("memory", _U32), ("reserved", _U32 * 2)]


class Buffer(ctypes.Structure):
    """`struct v4l2_buffer`, with the offset of its union `m`."""

    _fields_: ClassVar = [
        ("index", _U32),
        ("type", _U32),
        ("bytesused", _U32),
        ("flags", _U32),
        ("field", _U32),
        ("seconds", ctypes.c_int64),
        ("microseconds", ctypes.c_int64),
        ("timecode", _U32 * 4),
        ("sequence", _U32),
        ("memory", _U32),
        ("offset", ctypes.c_uint64),
        ("length", _U32),
        ("reserved", _U32 * 2),
    ]


class StreamParameters(ctypes.Structure):
    """`struct v4l2_streamparm` of a capture."""

    _fields_: ClassVar = [
        ("type", _U32),
        ("capability", _U32),
        ("capturemode", _U32),
        ("seconds_numerator", _U32),
        ("seconds_denominator", _U32),
        ("unused", ctypes.c_uint8 * 184),
    ]


class Input(ctypes.Structure):
    """`struct v4l2_input`."""

    _fields_: ClassVar = [
        ("index", _U32),
        ("name", ctypes.c_char * 32),
        ("type", _U32),
        ("audioset", _U32),
        ("tuner", _U32),
        ("std", ctypes.c_uint64),
        ("status", _U32),
        ("capabilities", _U32),
        ("reserved", _U32 * 3),
    ]


class DvTimings(ctypes.Structure):
    """`struct v4l2_dv_timings`; it is handed back to the driver as it came."""

    _fields_: ClassVar = [("content", ctypes.c_uint8 * 132)]


class EventSubscription(ctypes.Structure):
    """`struct v4l2_event_subscription`."""

    _fields_: ClassVar = [("type", _U32), ("id", _U32), ("flags", _U32), ("reserved", _U32 * 5)]


class Event(ctypes.Structure):
    """`struct v4l2_event`; of its union the first field of a source change."""

    _fields_: ClassVar = [
        ("type", _U32),
        ("padding", _U32),
        ("changes", ctypes.c_uint64),
        ("unused", ctypes.c_uint64 * 7),
        ("pending", _U32),
        ("sequence", _U32),
        ("seconds", ctypes.c_int64),
        ("nanoseconds", ctypes.c_int64),
        ("id", _U32),
        ("reserved", _U32 * 9),
    ]


_WRITE, _READ = 1, 2


def _request(direction: int, number: int, size: int) -> int:
    """Return `_IOC(direction, 'V', number, size)` of <asm-generic/ioctl.h>."""
    return direction << 30 | size << 16 | ord("V") << 8 | number


QUERYCAP = _request(_READ, 0, ctypes.sizeof(Capability))
ENUM_FMT = _request(_READ | _WRITE, 2, ctypes.sizeof(FormatDescription))
G_FMT = _request(_READ | _WRITE, 4, ctypes.sizeof(Format))
S_FMT = _request(_READ | _WRITE, 5, ctypes.sizeof(Format))
REQBUFS = _request(_READ | _WRITE, 8, ctypes.sizeof(RequestBuffers))
QUERYBUF = _request(_READ | _WRITE, 9, ctypes.sizeof(Buffer))
QBUF = _request(_READ | _WRITE, 15, ctypes.sizeof(Buffer))
DQBUF = _request(_READ | _WRITE, 17, ctypes.sizeof(Buffer))
STREAMON = _request(_WRITE, 18, 4)
STREAMOFF = _request(_WRITE, 19, 4)
G_PARM = _request(_READ | _WRITE, 21, ctypes.sizeof(StreamParameters))
ENUMINPUT = _request(_READ | _WRITE, 26, ctypes.sizeof(Input))
G_INPUT = _request(_READ, 38, 4)
S_DV_TIMINGS = _request(_READ | _WRITE, 87, ctypes.sizeof(DvTimings))
DQEVENT = _request(_READ, 89, ctypes.sizeof(Event))
SUBSCRIBE_EVENT = _request(_WRITE, 90, ctypes.sizeof(EventSubscription))
QUERY_DV_TIMINGS = _request(_READ, 99, ctypes.sizeof(DvTimings))

BUF_TYPE_VIDEO_CAPTURE = 1
MEMORY_MMAP = 1
CAP_VIDEO_CAPTURE = 0x1
CAP_VIDEO_CAPTURE_MPLANE = 0x1000
CAP_STREAMING = 0x04000000
CAP_DEVICE_CAPS = 0x80000000
PIX_FMT_PRIV_MAGIC = 0xFEEDCAFE
FIELD_ANY, FIELD_NONE, FIELD_INTERLACED, FIELD_INTERLACED_TB, FIELD_INTERLACED_BT = 0, 1, 4, 8, 9
COLORSPACE_JPEG = 7
QUANTIZATION_DEFAULT, QUANTIZATION_LIM_RANGE = 0, 2
BUF_FLAG_ERROR = 0x40
BUF_FLAG_TIMESTAMP_MASK = 0xE000
BUF_FLAG_TIMESTAMP_MONOTONIC = 0x2000
# No power, no signal, no lock of lines or fields, no synchronisation, no carrier.
IN_ST_NO_PICTURE = 0x1 | 0x2 | 0x100 | 0x400 | 0x10000 | 0x40000
EVENT_SOURCE_CHANGE = 5
EVENT_SRC_CH_RESOLUTION = 1
