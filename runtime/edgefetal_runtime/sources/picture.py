"""Grey 8-bit pictures from PNG and JPEG files, whole or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from edgefetal_devices.errors import SourceError

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg")

# OpenCV decodes what there is of a cut file and only prints a warning, so the end of the file is checked here:
# the IEND chunk of PNG (ISO/IEC 15948, 5.3) with its CRC, and the EOI marker of JPEG (ITU-T T.81, B.1.1.3).
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"\x00\x00\x00\x00IEND\xaeB`\x82"
_JPEG_START, _JPEG_END = b"\xff\xd8\xff", b"\xff\xd9"


def read_grey(path: Path) -> npt.NDArray[np.uint8]:
    """Read a picture as grey.

    Returns:
        Pixels, shape (H, W), uint8; colour is converted by the luma weights of ITU-R BT.601.

    Raises:
        SourceError: the file is missing, empty, cut short, damaged, or not an 8-bit PNG or JPEG.
    """
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        message = f"{path} does not exist; give the path of a PNG or JPEG picture."
        raise SourceError(message) from None
    except OSError as error:
        message = f"{path} cannot be read ({error.strerror}); check the path and its permissions."
        raise SourceError(message) from error
    if not content:
        message = f"{path} is empty (0 bytes); copy the picture again."
        raise SourceError(message)
    if content.startswith(_PNG_START):
        whole = content.endswith(_PNG_END)
    elif content.startswith(_JPEG_START):
        whole = _JPEG_END in content[-1024:]  # some writers append padding after the marker
    else:
        message = f"{path} is neither a PNG nor a JPEG picture; convert it first."
        raise SourceError(message)
    try:
        pixels = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED) if whole else None
    except cv2.error:  # a header that claims more pixels than OpenCV takes
        pixels = None
    if pixels is None:
        message = f"{path} is cut short or damaged; copy the picture again."
        raise SourceError(message)
    if pixels.dtype != np.uint8:
        message = (
            f"{path} has {8 * pixels.dtype.itemsize} bits a pixel; export it with 8 bits, as the machine shows it."
        )
        raise SourceError(message)
    if pixels.ndim == 2:  # noqa: PLR2004 - rows and columns: already grey
        return np.asarray(pixels, np.uint8)
    code = {3: cv2.COLOR_BGR2GRAY, 4: cv2.COLOR_BGRA2GRAY}
    return np.asarray(cv2.cvtColor(pixels, code[pixels.shape[2]]), np.uint8)
