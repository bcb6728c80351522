"""How a live source is named: one line of text, which also tells the child process what to open."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, TypeAlias
from urllib.parse import urlsplit

from edgefetal_devices.errors import SourceError

# What FFmpeg and OpenCV play at; beyond it a rate is a slip of the finger.
MIN_FPS, MAX_FPS = 1.0, 240.0
_PIXEL_FORMATS = ("GREY", "YUYV", "UYVY", "NV12", "MJPG")
_SIZE = re.compile(r"([1-9][0-9]{1,4})x([1-9][0-9]{1,4})")
# What follows the last question mark is options only where it looks like them, because a file name may hold one.
_OPTIONS = re.compile(r"(?P<path>.*)\?(?P<options>[a-z]+=[^&=/]*(&[a-z]+=[^&=/]*)*)", re.DOTALL)
_SCHEMES = ("v4l2", "rtsp", "simulated", "drill")
_USAGE = "give v4l2:/dev/video0, rtsp://HOST/PATH, simulated:FILE or drill:frames=90,unplug"


@dataclass(frozen=True)
class V4l2Address:
    """A capture card or camera that Linux shows as `/dev/video*`.

    Args:
        text: the address as it was given.
        device: path of the device.
        size_px: width and height to ask for; None takes what the device is set to.
        pixel_format: V4L2's code to ask for; None takes the best that is offered.
    """

    text: str
    device: str
    size_px: tuple[int, int] | None = None
    pixel_format: str | None = None
    kind: ClassVar[str] = "v4l2"

    @property
    def name(self) -> str:
        """Return what people may see of it."""
        return f"v4l2:{self.device}"


@dataclass(frozen=True)
class RtspAddress:
    """A network camera or encoder.

    Args:
        text: the address as it was given; it may hold a password, so it is never shown.
        name: the same without user, password and query.
    """

    text: str
    name: str
    kind: ClassVar[str] = "rtsp"


@dataclass(frozen=True)
class SimulatedAddress:
    """A file played as if it were live.

    Args:
        text: the address as it was given.
        path: any file or folder that `open_source` takes.
        fps: frames per second; None plays at the file's own times.
        loop: begin again at the end.
    """

    text: str
    path: Path
    fps: float | None = None
    loop: bool = False
    kind: ClassVar[str] = "simulated"

    @property
    def name(self) -> str:
        """Return what people may see of it."""
        return f"simulated:{self.path.name}"


@dataclass(frozen=True)
class DrillAddress:
    """A test picture with faults on cue, to rehearse them.

    Args:
        text: the address as it was given.
        steps: what happens, in order: `(what, how much)`; `drill.py` says what there is.
    """

    text: str
    steps: tuple[tuple[str, str], ...]
    kind: ClassVar[str] = "drill"

    @property
    def name(self) -> str:
        """Return what people may see of it."""
        return "drill"


Address: TypeAlias = V4l2Address | RtspAddress | SimulatedAddress | DrillAddress


def is_address(text: str) -> bool:
    """Tell whether a source is named as a live one, and not by a path."""
    return text.partition(":")[0] in _SCHEMES and ":" in text


def parse_address(text: str) -> Address:
    """Read the address of a live source.

    `v4l2:/dev/video0[?size=1280x720&format=YUYV]`, `rtsp://HOST/PATH`, `simulated:FILE[?fps=30&loop=1]` or
    `drill:STEP[,STEP]...`.

    Raises:
        SourceError: it is none of these.
    """
    scheme, _, rest = text.partition(":")
    if "\0" in text or "\n" in text or not rest:
        raise _refuse(text, f"is no live source; {_USAGE}")
    if scheme == "v4l2":
        return _v4l2(text, rest)
    if scheme == "rtsp":
        return _rtsp(text)
    if scheme == "simulated":
        return _simulated(text, rest)
    if scheme == "drill":
        return DrillAddress(text, tuple((what, much) for what, _, much in (s.partition("=") for s in rest.split(","))))
    raise _refuse(text, f"is no live source; {_USAGE}")


def size_of(text: str) -> tuple[int, int] | None:
    """Read `WIDTHxHEIGHT`, or return None where it is none."""
    found = _SIZE.fullmatch(text)
    return (int(found[1]), int(found[2])) if found else None


def _refuse(text: str, why: str) -> SourceError:
    # An address of a camera may hold its password.
    shown = re.sub(r"//[^/]*@", "//", text)[:200]
    return SourceError(f"{shown!r} {why}.")


def _with_options(text: str, rest: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    found = _OPTIONS.fullmatch(rest)
    if not found:
        return rest, {}
    pairs = [pair.partition("=")[::2] for pair in found["options"].split("&")]
    options = dict(pairs)
    if len(options) < len(pairs) or not set(options) <= set(known):
        raise _refuse(text, f"takes {' and '.join(known)} after the question mark, once each; correct the options")
    return found["path"], options


def _v4l2(text: str, rest: str) -> V4l2Address:
    device, options = _with_options(text, rest, ("size", "format"))
    if not device.startswith("/dev/") or ".." in device:
        raise _refuse(text, "names no device; give it as in v4l2:/dev/video0")
    size_px = size_of(options["size"]) if "size" in options else None
    if "size" in options and size_px is None:
        raise _refuse(text, "has a size that is none; give it as in size=1280x720")
    pixel_format = options.get("format")
    if pixel_format is not None and pixel_format not in _PIXEL_FORMATS:
        raise _refuse(text, f"has a format that is not read; give one of {', '.join(_PIXEL_FORMATS)}")
    return V4l2Address(text, device, size_px, pixel_format)


def _rtsp(text: str) -> RtspAddress:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        host, port = None, None
    if not host or not text.startswith("rtsp://"):
        raise _refuse(text, "names no host; give it as in rtsp://192.168.1.20/stream")
    return RtspAddress(text, f"rtsp://{host}{f':{port}' if port else ''}{parts.path}")


def _simulated(text: str, rest: str) -> SimulatedAddress:
    path, options = _with_options(text, rest, ("fps", "loop"))
    if not path:
        raise _refuse(text, "names no file; give it as in simulated:sweep.mp4")
    fps = None
    if "fps" in options:
        fps = float(options["fps"]) if re.fullmatch(r"[0-9]{1,4}(\.[0-9]{1,6})?", options["fps"]) else 0.0
        if not MIN_FPS <= fps <= MAX_FPS:
            raise _refuse(text, f"has a rate that is none; give fps={MIN_FPS:g} to {MAX_FPS:g}")
    if options.get("loop", "0") not in {"0", "1"}:
        raise _refuse(text, "says loop, which is 0 or 1; correct it")
    return SimulatedAddress(text, Path(path), fps, options.get("loop") == "1")
