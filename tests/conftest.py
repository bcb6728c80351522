"""What all test folders share: the starter bundle, real data where they are, and a tiny dataset that is drawn."""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgefetal.starter import bundle_folder
from edgefetal_calibration.datasets.hc18 import TABLE
from edgefetal_calibration.phantom.exam import Exam, ExamPlan
from edgefetal_calibration.phantom.formation import form_picture
from edgefetal_calibration.phantom.probe import Fan
from edgefetal_calibration.phantom.protocol import Protocol
from edgefetal_calibration.phantom.writers import HeadPicture, write_hc18
from edgefetal_runtime.biometry.ellipse import Ellipse
from edgefetal_runtime.infer.bundle import Bundle, load_bundle
from edgefetal_runtime.infer.trust import ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from edgefetal_export.draft import Draft
    from tests.made_up_board import MadeUpBoard, Maker

ROOT = Path(__file__).parent.parent
# So that what several folders need can be imported by its name.
sys.path.insert(0, str(Path(__file__).parent))
# What commands print is read by tests: one width, no colours and no moving bars, whatever the caller's terminal is.
os.environ.update({"COLUMNS": "200", "TERM": "dumb"})
for _wish in ("FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "PY_COLORS", "GITHUB_ACTIONS"):
    os.environ.pop(_wish, None)
# Width and height of the drawn pictures, and the size of their pixels.
HC18_SIZE_PX = (260, 180)
HC18_MM_PER_PX = 0.62
# How far beyond the bone the edge of its blurred echo lies, along which HC18's readers draw, and so does the starter.
ECHO_EDGE_MM = 0.7


@pytest.fixture(scope="session", autouse=True)
def _no_trusted_keys(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whom the tester's own machine trusts is no matter of the tests."""
    os.environ[ENVIRONMENT] = str(tmp_path_factory.mktemp("trusted"))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real data beside the checkout; tests that need them are skipped where they are absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}")
    return folder


@pytest.fixture(scope="session")
def hc18_root(shared_data: Path) -> Path:
    """HC18 in its official layout."""
    folder = shared_data / "hc18"
    if not (folder / TABLE).is_file():
        pytest.skip(f"HC18 is not at {folder}")
    return folder


@pytest.fixture(scope="session")
def starter() -> Bundle:
    """The bundle that comes with the package."""
    return load_bundle(bundle_folder("starter"))


def _draw_hc18(root: Path, heads: Iterable[tuple[str, float]]) -> Path:
    """Make a folder in HC18's layout with simulated heads, 180 x 260 pixels each: file names with weeks of age."""
    write_hc18(root, (_head_picture(name, weeks, number) for number, (name, weeks) in enumerate(heads)))
    return root


def _head_picture(name: str, weeks: float, number: int) -> HeadPicture:
    """Draw the standard plane of a simulated fetus's head, zoomed to, and outline it as a reader would."""
    # Of three frames that a practised hand takes across the head the middle one is about at the plane.
    exam = Exam(ExamPlan(Protocol.HEAD, weeks, seed=1, number=number, skill=1.0, frame_count=3))
    plane = exam.planes[0][1]
    outline = exam.scene.head_section(plane)
    assert outline is not None
    # Half of the samples along the beams take half of the time, and such coarse pixels do not show it.
    probe = replace(exam.probe_and_fan[0], samples=360)
    x, y = (HC18_SIZE_PX[0] - 1) / 2, (HC18_SIZE_PX[1] - 1) / 2
    fan = Fan(
        *HC18_SIZE_PX,
        HC18_MM_PER_PX,
        HC18_MM_PER_PX,
        x - outline.center_x / HC18_MM_PER_PX,
        y - outline.center_y / HC18_MM_PER_PX,
    )
    labels, material_mm = exam.scene.tissue_and_material(plane.points(probe.x_mm, probe.z_mm))
    # One seed for all, because laying out the scatterers would take longer than drawing the picture.
    pixels = form_picture(labels, material_mm, probe, fan, exam.look, seed=1, frame=number)
    semi_px = (outline.semi_major / HC18_MM_PER_PX, outline.semi_minor / HC18_MM_PER_PX)
    bone_px = Ellipse(x, y, *semi_px, outline.angle_rad)
    return HeadPicture(name, pixels, bone_px.grown(ECHO_EDGE_MM / HC18_MM_PER_PX), HC18_MM_PER_PX)


@pytest.fixture(scope="session")
def tiny_hc18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Thirty-two simulated heads of 28 subjects in HC18's layout."""
    names = [f"{number % 28:03d}_{'' if number < 28 else 2}HC.png" for number in range(32)]
    heads = ((name, 16.0 + 0.35 * number) for number, name in enumerate(names))
    return _draw_hc18(tmp_path_factory.mktemp("tiny") / "hc18", heads)


@pytest.fixture(scope="session")
def simulated_hc18(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty simulated heads of as many subjects, large enough for the starter, which measures nearly all of them."""
    heads = ((f"{number:03d}_HC.png", 20.0 + 0.2 * number) for number in range(40))
    return _draw_hc18(tmp_path_factory.mktemp("simulated") / "hc18", heads)


@pytest.fixture(scope="session")
def simulated_draft(starter: Bundle, simulated_hc18: Path) -> Draft:
    """The starter's float graph, shipped as it is, as if it had been trained on some of the simulated heads.

    It measures them well and never strays from itself, so it passes its budget on any machine.
    """
    from edgefetal_calibration.datasets.hc18 import read_hc18
    from edgefetal_calibration.datasets.split import split_by_subject
    from edgefetal_export.draft import draft_of

    split = split_by_subject(read_hc18(simulated_hc18), dataset="hc18", seed=1, validation=0.26, held_out=0.7)
    draft = draft_of(starter)
    return replace(draft, shipped=draft.reference, split=split)


@pytest.fixture(scope="session")
def lenient_budget(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A budget that may be judged on as few heads as the tests draw, of which the starter may refuse some."""
    file = tmp_path_factory.mktemp("budget") / "lenient.yaml"
    file.write_text("hc: {min_cases: 4, min_subjects: 4}\nfloat_not_measured: {limit: 90.0}\n")
    return file


@pytest.fixture(scope="session")
def simulated_bundle(
    simulated_draft: Draft, simulated_hc18: Path, lenient_budget: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, dict[str, list[int]]]:
    """That draft finished on the simulated heads; and for each step how many parts were done, and of how many."""
    from edgefetal_calibration.budget_file import read_budget
    from edgefetal_calibration.datasets.hc18 import read_hc18
    from edgefetal_export.draft import recalibrate

    steps: dict[str, list[int]] = {}

    class Recorder:
        def step(self, title: str, total: int | None) -> Callable[[], None]:
            steps[title] = [0, total or 0]

            def advance() -> None:
                steps[title][0] += 1

            return advance

    out = tmp_path_factory.mktemp("simulated_bundle") / "bundle"
    budget = read_budget(lenient_budget)
    recalibrate(simulated_draft, read_hc18(simulated_hc18), out, budget=budget, progress=Recorder())
    return out, steps


@pytest.fixture(scope="session")
def bundle_maker(tmp_path_factory: pytest.TempPathFactory) -> Maker:
    """Somebody who signs bundles for a board that is not there."""
    from made_up_board import new_maker

    return new_maker(tmp_path_factory.mktemp("maker"))


@pytest.fixture(scope="session")
def nano_bundle(bundle_maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A signed bundle for that board; not to be altered."""
    return bundle_maker.make(tmp_path_factory.mktemp("nano") / "bundle")


@pytest.fixture
def nano(monkeypatch: pytest.MonkeyPatch) -> MadeUpBoard:
    """That board, in place of this machine."""
    from made_up_board import MadeUpBoard

    board = MadeUpBoard()
    board.install(monkeypatch)
    return board


@pytest.fixture(scope="session")
def finished_home(nano_bundle: Path, bundle_maker: Maker, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where that bundle was finished on that board; not to be altered."""
    from made_up_board import MadeUpBoard

    home = tmp_path_factory.mktemp("finished") / "home"
    with pytest.MonkeyPatch.context() as patch:
        board = MadeUpBoard()
        board.install(patch)
        board.finish(nano_bundle, home, bundle_maker.trust)
    return home
