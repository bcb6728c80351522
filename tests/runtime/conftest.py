"""What the runtime's tests share: a bundle to damage, heads drawn as logits, a network that answers as it is told.

The helpers are session fixtures that return functions, because test folders are not packages and hypothesis wants
fixtures that outlive one example.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from edgefetal.starter import bundle_folder
from edgefetal_runtime.infer.bundle import MANIFEST, Bundle, load_bundle
from edgefetal_runtime.infer.network import Network
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from edgefetal_runtime.infer.bundle import Manifest

Answer = dict[str, Any]


@pytest.fixture(scope="session")
def intact_bundle() -> Bundle:
    return load_bundle(bundle_folder("starter"))


@pytest.fixture
def bundle_copy(tmp_path: Path) -> Path:
    """A copy of the starter bundle that a test may damage."""
    folder = tmp_path / "copied bundle"
    shutil.copytree(bundle_folder("starter"), folder)
    return folder


def _edit_manifest(folder: Path, **changes: Any) -> None:
    path = folder / MANIFEST
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def _rehash(folder: Path) -> None:
    files = sorted(file for file in folder.iterdir() if file.name != MANIFEST)
    _edit_manifest(folder, files={file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files})


@pytest.fixture(scope="session")
def edit_manifest() -> Callable[..., None]:
    """Replace top-level fields of a bundle's manifest: `edit_manifest(folder, name="other")`."""
    return _edit_manifest


@pytest.fixture(scope="session")
def rehash() -> Callable[[Path], None]:
    """Make a bundle's manifest agree with its files again."""
    return _rehash


def _head_logits(
    ellipse: tuple[float, float, float, float, float],
    frame_shape: tuple[int, int],
    spec: PreprocessSpec,
    sharpness: float = 100.0,
) -> npt.NDArray[np.float32]:
    """Logits of a network that sees an ellipse, (x, y, semi-axes, angle) in frame pixels, exactly.

    They come from the implicit function of the ellipse, not from the code under test.
    """
    center_x, center_y, semi_1, semi_2, angle = ellipse
    box = letterbox(*frame_shape, spec)
    columns, rows = np.meshgrid(np.arange(spec.width_px, dtype=float), np.arange(spec.height_px, dtype=float))
    x = columns * box.x.step + box.x.offset - center_x
    y = rows * box.y.step + box.y.offset - center_y
    u = (x * np.cos(angle) + y * np.sin(angle)) / semi_1
    v = (y * np.cos(angle) - x * np.sin(angle)) / semi_2
    logits = sharpness * (1.0 - np.hypot(u, v))
    in_frame = np.zeros(logits.shape, dtype=bool)
    in_frame[box.top_px : box.top_px + box.content_height_px, box.left_px : box.left_px + box.content_width_px] = True
    return np.where(in_frame, logits, -sharpness).astype(np.float32)


@pytest.fixture(scope="session")
def head_logits() -> Callable[..., npt.NDArray[np.float32]]:
    return _head_logits


@dataclass
class ScriptedBackend:
    """A back end that gives prepared answers in order, the last one for ever, and keeps what it was asked."""

    answers: Sequence[Answer]
    name: str = "scripted"
    lanes: int = 1
    images: list[npt.NDArray[np.float32]] = field(default_factory=list)

    def run(self, image: npt.NDArray[np.float32]) -> Answer:
        self.images.append(image)
        return self.answers[min(len(self.images), len(self.answers)) - 1]


@pytest.fixture(scope="session")
def scripted_network(intact_bundle: Bundle) -> Callable[..., Network]:
    """Make a network from its answers, each `(mask logits (h, w), plane logits)`."""

    def make(
        answers: Sequence[tuple[npt.NDArray[np.float32], Sequence[float]]], manifest: Manifest | None = None
    ) -> Network:
        scripted = [{"mask": mask[None, None], "plane": np.array([plane], np.float32)} for mask, plane in answers]
        return Network(manifest or intact_bundle.manifest, ScriptedBackend(scripted))

    return make
