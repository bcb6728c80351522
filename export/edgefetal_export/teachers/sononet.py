"""SonoNet and SmallNet, the plane classifiers of Baumgartner et al. 2017 (arXiv 1612.05601), with their weights.

The weights are those of github.com/baumgach/SonoNet-weights (Apache-2.0): `.npz` files with the arrays of a Lasagne
network one after another. The layers are those of its `models.py`: a VGG of five blocks with batch normalisation, two
1 x 1 convolutions in place of fully connected layers, and the average over the map; SmallNet is four plain convolutions
before the same end. What is particular to Lasagne:

- normalisation is stored as shift, scale, mean and inverse standard deviation, to whose variance 1e-4 was added;
- SonoNet's filters are correlated with the picture, as torch does; SmallNet's are convolved with it, that is, turned by
  half a turn first.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, cast

import cv2
import numpy as np
import torch
from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from edgefetal_devices.errors import InputError
from edgefetal_runtime.infer.bundle import ABDOMEN, FEMUR, HEAD
from edgefetal_runtime.infer.preprocess import PreprocessSpec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    import numpy.typing as npt

    Shape = tuple[int, ...]

PLANES: Final = (
    "3VV", "4CH", "Abdominal", "Background", "Brain (Cb.)", "Brain (Tv.)", "Femur", "Kidneys", "Lips", "LVOT",
    "Profile", "RVOT", "Spine (cor.)", "Spine (sag.)",
)  # fmt: skip
HEIGHT_PX: Final = 224
WIDTH_PX: Final = 288
# SonoNet's own names of the planes that are measured; HC is not taken in the transcerebellar one.
CONTRACT_PLANES: Final = {"Abdominal": ABDOMEN, "Brain (Tv.)": HEAD, "Femur": FEMUR}
LICENCE: Final = "Apache-2.0"
ATTRIBUTION: Final = "SonoNet, Baumgartner et al. 2017, arXiv 1612.05601, github.com/baumgach/SonoNet-weights"
# Published pictures fill the input whatever their aspect; their grey levels are standardised in the network.
PREPROCESS: Final = PreprocessSpec(height_px=HEIGHT_PX, width_px=WIDTH_PX, mean=0.0, std=1.0, stretch=True)

# Files whose contents were seen; SonoNet32 and SonoNet64 follow the same rule, but were not at hand.
PUBLISHED: Final = {
    "bbbf9dde2b3af686c247a3074d890ceb685cd63fc1fc2af7e704edc07810c53f": "SonoNet16",
    "5c85b2463cbca099a8db86126a002b1a0f35f70764f182d5d4aa88cef15b581f": "SmallNet",
}

Variant = Literal["SonoNet16", "SonoNet32", "SonoNet64", "SmallNet"]

_FILTERS: Final[dict[Variant, int]] = {"SonoNet16": 16, "SonoNet32": 32, "SonoNet64": 64}
# Of SonoNet's blocks: how many times the first block's filters, and how many convolutions.
_BLOCKS: Final = ((1, 2), (2, 2), (4, 3), (8, 3), (8, 3))
_HEAD_FILTERS: Final = 4
# Of SmallNet's convolutions: filters, their side, their step, the picture's padding and whether a pool follows.
_SMALL_LAYERS: Final = ((32, 7, 2, 0, True), (64, 5, 2, 0, True), (128, 3, 1, 1, False), (128, 3, 1, 1, False))
_SMALL_HEAD_FILTERS: Final = 64
_EPSILON: Final = 1e-4
_ARRAYS_OF_NORM: Final = 4
# SonoNet64, the largest, has 15 million numbers.
_MAX_BYTES: Final = 128 * 2**20
_BATCH: Final = 16


class SononetConfig(BaseModel):
    """Shape of the network.

    Args:
        variant: name of the published network.
        planes: names of the classes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    variant: Variant = "SonoNet16"
    planes: tuple[str, ...] = PLANES


@dataclass(frozen=True, eq=False)
class ImportedSononet:
    """A network with its published weights.

    Args:
        network: in evaluation mode.
        config: its shape.
        sha256: hash of the file that the weights came from.
        published: whether that is a file known to be the published one.
    """

    network: Sononet
    config: SononetConfig
    sha256: str
    published: bool


class Sononet(nn.Module):
    """SonoNet or SmallNet.

    Convolutions stand in `features` and `head` in the order of the published arrays.
    """

    def __init__(self, config: SononetConfig) -> None:
        """Build the network with random weights."""
        super().__init__()
        small = config.variant == "SmallNet"
        body, channels = _small_body() if small else _vgg_body(_FILTERS[config.variant])
        narrow = _SMALL_HEAD_FILTERS if small else _HEAD_FILTERS * _FILTERS[config.variant]
        self.features = nn.Sequential(*body)
        self.head = nn.Sequential(
            *_layer(channels, narrow, 1, norm=not small), *_layer(narrow, len(config.planes), 1, norm=not small)[:-1]
        )

    def forward(self, image: Tensor) -> Tensor:
        """Run the network.

        Args:
            image: shape (N, 1, H, W), preprocessed; published for 224 x 288.

        Returns:
            Logits of the planes, shape (N, planes).
        """
        return self.maps(image).mean(dim=(2, 3))

    def maps(self, image: Tensor) -> Tensor:
        """Return the maps whose averages are the logits, shape (N, planes, h, w)."""
        return cast("Tensor", self.head(self.features(image)))


class SononetOnFrames(nn.Module):
    """SonoNet behind the project's one preprocessing: frames prepared by `PREPROCESS`, standardised within the graph.

    The published input is 255 (x - mean) / standard deviation of each picture. The preprocessing shrinks in another way
    than the published code, so its logits differ a little from those of `plane_probabilities`.
    """

    def __init__(self, network: Sononet) -> None:
        """Wrap a network."""
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        """Run the network.

        Args:
            image: shape (N, 1, 224, 288), 0 to 1.

        Returns:
            `plane` logits, shape (N, planes).
        """
        centred = image - image.mean(dim=(1, 2, 3), keepdim=True)
        spread = centred.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        # A picture of one grey level stays 0.
        return cast("Tensor", self.network(255.0 * centred / spread.clamp(min=1e-6)))


def _layer(inputs: int, filters: int, side: int, *, norm: bool, step: int = 1, padding: int = 0) -> list[nn.Module]:
    """Return a convolution, its normalisation if any, and the rectifier."""
    convolution = nn.Conv2d(inputs, filters, side, stride=step, padding=padding, bias=not norm)
    middle = [nn.BatchNorm2d(filters, eps=_EPSILON)] if norm else []
    return [convolution, *middle, nn.ReLU()]


def _vgg_body(filters: int) -> tuple[list[nn.Module], int]:
    """Return SonoNet's blocks and the channels that come out of them."""
    layers: list[nn.Module] = []
    channels = 1
    for number, (times, convolutions) in enumerate(_BLOCKS):
        if number:
            layers.append(nn.MaxPool2d(2))
        for _ in range(convolutions):
            layers += _layer(channels, times * filters, 3, norm=True, padding=1)
            channels = times * filters
    return layers, channels


def _small_body() -> tuple[list[nn.Module], int]:
    """Return SmallNet's layers and the channels that come out of them."""
    layers: list[nn.Module] = []
    channels = 1
    for filters, side, step, padding, pooled in _SMALL_LAYERS:
        layers += _layer(channels, filters, side, norm=False, step=step, padding=padding)
        layers += [nn.MaxPool2d(2)] if pooled else []
        channels = filters
    return layers, channels


def read_sononet(path: Path) -> ImportedSononet:
    """Read published weights; which network they are of follows from the shapes of the arrays.

    Raises:
        InputError: the file cannot be read, or holds anything but the arrays of one of the four networks.
    """
    content = _content(path)
    arrays = _arrays(path, content)
    config = SononetConfig(variant=_variant(path, arrays))
    network = Sononet(config)
    targets = list(_targets(network))
    expected = [shape for shapes in map(_shapes, targets) for shape in shapes]
    found = [array.shape for array in arrays]
    if found != expected:
        number = next(
            (k for k, (ours, theirs) in enumerate(zip(expected, found, strict=False)) if ours != theirs),
            min(len(expected), len(found)),
        )
        raise InputError(
            f"{path} does not hold the weights of {config.variant}: {len(found)} arrays in place of {len(expected)}, "
            f"and array {number} is the first that differs; download it again."
        )
    _fill(path, targets, iter(arrays), turned=config.variant == "SmallNet")
    sha256 = hashlib.sha256(content).hexdigest()
    network.eval().requires_grad_(requires_grad=False)
    return ImportedSononet(network, config, sha256, published=PUBLISHED.get(sha256) == config.variant)


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise InputError(f"{path} is larger than any SonoNet; give the published .npz file.")
        return path.read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); give the published .npz file.") from error


def _arrays(path: Path, content: bytes) -> list[npt.NDArray[np.float32]]:
    """Return `arr_0`, `arr_1` and so on, which must be all there is."""
    try:
        found = _unpacked(content)
    # Altered bytes make zip, deflate and NumPy's header raise a dozen kinds of error.
    except Exception as error:
        raise InputError(f"{path} is not a sound .npz file of plain arrays ({error}); download it again.") from error
    names = [f"arr_{number}" for number in range(len(found))]
    if set(found) != set(names) or not names:
        raise InputError(f"{path} has arrays of other names than arr_0 onwards; give a published SonoNet file.")
    arrays = [found[name] for name in names]
    for name, array in zip(names, arrays, strict=True):
        if array.dtype != np.float32 or not np.isfinite(array).all():
            raise InputError(f"{name} in {path} does not hold finite 32-bit numbers; download it again.")
    return arrays


def _unpacked(content: bytes) -> dict[str, npt.NDArray[np.float32]]:
    """Unpack all arrays by name; no pickle is ever opened, and nothing unpacks to more than the limit."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = sum(entry.file_size for entry in archive.infolist())
    if size > _MAX_BYTES:
        raise ValueError(f"it unpacks to {size} bytes, more than any SonoNet has")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def _variant(path: Path, arrays: Sequence[npt.NDArray[np.float32]]) -> Variant:
    """Tell the network by its first filters."""
    first = arrays[0].shape
    small = _SMALL_LAYERS[0]
    if first == (small[0], 1, small[1], small[1]):
        return "SmallNet"
    for variant, filters in _FILTERS.items():
        if first == (filters, 1, 3, 3):
            return variant
    known = ", ".join([*_FILTERS, "SmallNet"])
    raise InputError(f"{path} begins with an array of {first}, as none of {known} does; give one of their files.")


def _targets(network: Sononet) -> Iterator[tuple[nn.Conv2d, nn.BatchNorm2d | None]]:
    """Give every convolution with the normalisation after it."""
    modules = [*network.features, *network.head]
    for module, following in zip(modules, [*modules[1:], None], strict=True):
        if isinstance(module, nn.Conv2d):
            yield module, following if isinstance(following, nn.BatchNorm2d) else None


def _shapes(target: tuple[nn.Conv2d, nn.BatchNorm2d | None]) -> list[Shape]:
    """Return the shapes of the arrays of a convolution: filters, then a bias or four arrays of normalisation."""
    convolution, norm = target
    vectors = 1 if norm is None else _ARRAYS_OF_NORM
    return [tuple(convolution.weight.shape), *[(convolution.out_channels,)] * vectors]


@torch.no_grad()
def _fill(
    path: Path,
    targets: Iterable[tuple[nn.Conv2d, nn.BatchNorm2d | None]],
    arrays: Iterator[npt.NDArray[np.float32]],
    *,
    turned: bool,
) -> None:
    """Copy arrays of the right shapes into a network."""
    for convolution, norm in targets:
        filters = next(arrays)
        if turned:
            filters = filters[:, :, ::-1, ::-1].copy()
        convolution.weight.copy_(torch.from_numpy(filters))
        if norm is None:
            cast("Tensor", convolution.bias).copy_(torch.from_numpy(next(arrays)))
            continue
        shift, scale, mean, inverse_std = (next(arrays) for _ in range(_ARRAYS_OF_NORM))
        if inverse_std.min() <= 0:
            raise InputError(f"{path} has a standard deviation that is not above zero; download it again.")
        norm.bias.copy_(torch.from_numpy(shift))
        norm.weight.copy_(torch.from_numpy(scale))
        cast("Tensor", norm.running_mean).copy_(torch.from_numpy(mean))
        variance = inverse_std.astype(np.float64) ** -2 - _EPSILON
        cast("Tensor", norm.running_var).copy_(torch.from_numpy(variance))


def sononet_input(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Prepare a picture as published: 224 x 288 without regard to its aspect, then 255 (x - mean) / standard deviation.

    The published code shrinks with a triangle filter; the average over a pixel's area is OpenCV's nearest to it. The
    screen around the ultrasound is to be cut off before. A picture of one grey level becomes 0.

    Args:
        grey: shape (H, W).

    Returns:
        Shape (1, 224, 288).

    Raises:
        InputError: it is no grey picture of 8 bits.
    """
    if grey.ndim != 2 or grey.dtype != np.uint8 or not grey.size:  # noqa: PLR2004 - rows and columns
        raise InputError(f"A picture of shape {grey.shape} and type {grey.dtype} is not grey of 8 bits; convert it.")
    shrunk = grey.shape[0] > HEIGHT_PX or grey.shape[1] > WIDTH_PX
    way = cv2.INTER_AREA if shrunk else cv2.INTER_LINEAR
    picture = cv2.resize(grey, (WIDTH_PX, HEIGHT_PX), interpolation=way).astype(np.float32)
    spread = float(picture.std())
    scale = np.float32(255.0 / spread if spread > 0 else 0.0)
    return np.asarray((picture - picture.mean())[None] * scale, np.float32)


@torch.inference_mode()
def plane_probabilities(network: Sononet, pictures: Sequence[npt.NDArray[np.uint8]]) -> npt.NDArray[np.float32]:
    """Name the planes of pictures.

    Args:
        network: whose training mode is left as it is; published weights come in evaluation mode.
        pictures: each of shape (H, W), of any sizes, without the frame of the screen.

    Returns:
        Probabilities of the network's planes, shape (N, planes).

    Raises:
        InputError: one of them is no grey picture of 8 bits, or there is none.
    """
    if not pictures:
        raise InputError("There is no picture to name the plane of; give at least one.")
    parts = []
    for start in range(0, len(pictures), _BATCH):
        batch = np.stack([sononet_input(picture) for picture in pictures[start : start + _BATCH]])
        parts.append(torch.softmax(network(torch.from_numpy(batch)), dim=1).numpy())
    return np.concatenate(parts)
