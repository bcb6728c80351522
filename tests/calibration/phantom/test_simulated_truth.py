"""What the masks of simulated scenes measure is what their truth says."""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from edgefetal_calibration.phantom.fetus import SizeScores, size_for_age
from edgefetal_calibration.phantom.plane import Plane
from edgefetal_calibration.phantom.scene import PlaneName, PlaneTruth, Presentation, Scene, random_scene
from edgefetal_calibration.phantom.solids import Tiles
from edgefetal_calibration.phantom.tissue import Tissue
from edgefetal_devices.errors import InputError
from edgefetal_runtime.biometry.ellipse import ellipse_from_points
from edgefetal_runtime.biometry.femur import Shaft, find_shaft
from edgefetal_runtime.growth.charts import find_chart
from edgefetal_runtime.growth.measures import Measure
from edgefetal_runtime.infer.preprocess import PreprocessSpec, letterbox
from edgefetal_runtime.scale import Scale

MM_PER_PX = 0.28
HALF_PX = 0.5
Mask = npt.NDArray[np.uint8]


def _grid(truth: PlaneTruth, name: PlaneName) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """A picture's columns and rows in mm, around what the plane shows."""
    if name is PlaneName.HEAD:
        assert truth.head is not None
        points = truth.head.points(64)
    else:
        found = truth.abdomen_outline if name is PlaneName.ABDOMEN else truth.femur
        assert found is not None
        points = found
    low, high = points.min(axis=0) - 9.1, points.max(axis=0) + 9.3
    return np.arange(low[0], high[0], MM_PER_PX), np.arange(low[1], high[1], MM_PER_PX)


def _circumference(mask: Mask) -> float:
    """As the project measures a mask: contour pixels lie half a pixel inside the edge."""
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    points = max(contours, key=len)[:, 0].astype(np.float64)
    ellipse = ellipse_from_points(points)
    assert ellipse is not None
    return ellipse.grown(HALF_PX).circumference() * MM_PER_PX


def _length(mask: Mask) -> float:
    spec = PreprocessSpec(height_px=mask.shape[0], width_px=mask.shape[1], mean=0, std=1)
    logits = mask.astype(np.float32) * 8 - 4
    shaft = find_shaft(logits, letterbox(*mask.shape, spec), Scale(MM_PER_PX, MM_PER_PX, origin="test"))
    assert isinstance(shaft, Shaft), shaft
    return shaft.length


def _measured(scene: Scene, plane: Plane, name: PlaneName) -> tuple[float, float]:
    """Measured on the mask, and the truth of the plane."""
    truth = scene.truth(plane)
    x_mm, z_mm = _grid(truth, name)
    if name is PlaneName.HEAD:
        assert truth.hc_mm is not None
        return _circumference(scene.head_mask(truth, x_mm, z_mm)), truth.hc_mm
    if name is PlaneName.ABDOMEN:
        assert truth.ac_mm is not None
        return _circumference(scene.abdomen_mask(plane, truth, x_mm, z_mm)), truth.ac_mm
    assert truth.fl_mm is not None
    return _length(scene.femur_mask(plane, truth, x_mm, z_mm)), truth.fl_mm


def _scene(seed: int) -> Scene:
    rng = np.random.default_rng(seed)
    return random_scene(rng, float(rng.uniform(14.0, 40.0)))


@pytest.mark.parametrize("name", [PlaneName.HEAD, PlaneName.ABDOMEN, PlaneName.FEMUR])
def test_masks_of_standard_planes_measure_the_fetus(name: PlaneName) -> None:
    for seed in range(40):
        scene = _scene(seed)
        size = scene.fetus.size
        turn = float(np.random.default_rng(seed).uniform(-0.6, 0.6))
        measured, stated = _measured(scene, scene.plane_of(name, turn), name)
        wanted = {PlaneName.HEAD: size.hc_mm, PlaneName.ABDOMEN: size.ac_mm, PlaneName.FEMUR: size.fl_mm}[name]
        assert stated == pytest.approx(wanted, abs=1e-3)
        assert measured == pytest.approx(wanted, abs=0.5)


@pytest.mark.parametrize("name", [PlaneName.HEAD, PlaneName.ABDOMEN, PlaneName.FEMUR])
def test_masks_off_the_standard_plane_measure_what_the_plane_shows(name: PlaneName) -> None:
    """The abdomen's outline is no ellipse there, so its mask is held to a looser bound."""
    for seed in range(20):
        scene, rng = _scene(seed), np.random.default_rng(seed)
        standard = scene.plane_of(name)
        shaft = scene.fetus.femurs[0]
        lean, away = (0.25, 2.0) if name is not PlaneName.FEMUR else (shaft.radius / scene.fetus.size.fl_mm, 0.3)
        angle = lean * float(rng.uniform(-1, 1))
        lateral = math.cos(angle) * standard.lateral + math.sin(angle) * standard.normal
        middle = scene.origin if name is PlaneName.ABDOMEN else scene.to_world(scene.fetus.head_center)
        if name is PlaneName.FEMUR:
            middle = scene.to_world((shaft.start + shaft.end) / 2)
        # Turned about the middle of the structure.
        depth = float((middle - standard.origin) @ standard.axial)
        foot = middle - depth * standard.axial + away * float(rng.uniform(-1, 1)) * standard.normal
        measured, stated = _measured(scene, Plane(foot, lateral, standard.axial), name)
        assert measured == pytest.approx(stated, abs=1.0 if name is PlaneName.ABDOMEN else 0.5)


def test_the_outline_lies_on_the_skull_and_on_the_skin() -> None:
    """The analytic sections against the labels, which are painted independently of them."""
    scene = _scene(5)
    inner = (Tissue.OUTSIDE, Tissue.SKIN, Tissue.FAT, Tissue.MUSCLE, Tissue.UTERUS, Tissue.PLACENTA, Tissue.FLUID)
    for name in (PlaneName.HEAD, PlaneName.ABDOMEN):
        plane = scene.plane_of(name)
        truth = scene.truth(plane)
        outline = truth.head if name is PlaneName.HEAD else truth.abdomen
        assert outline is not None
        inside = outline.grown(-0.4).points(400)
        labels = scene.labels(plane.points(inside[:, 0], inside[:, 1]))
        assert not np.isin(labels, inner).any()
        if name is PlaneName.HEAD:
            assert np.mean(labels == Tissue.BONE) > 0.9
            beyond = outline.grown(0.4).points(400)
            assert not (scene.labels(plane.points(beyond[:, 0], beyond[:, 1])) == Tissue.BRAIN).any()


def test_sizes_follow_the_charts() -> None:
    for weeks in (14.0, 20.0, 28.3, 40.0):
        size = size_for_age(weeks, SizeScores(bpd=1.0, ofd=-1.0, ac=2.0, fl=-0.5))
        for measure, value, score in (
            (Measure.BPD, size.bpd_mm, 1.0),
            (Measure.OFD, size.ofd_mm, -1.0),
            (Measure.AC, size.ac_mm, 2.0),
            (Measure.FL, size.fl_mm, -0.5),
        ):
            assert value == find_chart("INTERGROWTH-21st 2014", measure).value_at_z(weeks, score)
        median = size_for_age(weeks)
        wanted = find_chart("INTERGROWTH-21st 2014", Measure.HC).value_at_z(weeks, 0.0)
        assert median.hc_mm == pytest.approx(wanted, rel=0.02)


@pytest.mark.parametrize("weeks", [13.9, 40.1, 60.0, math.nan, math.inf, -1.0])
def test_an_age_without_a_chart_is_refused(weeks: float) -> None:
    with pytest.raises(InputError, match="14w0d to 40w0d"):
        size_for_age(weeks)


def test_a_size_of_no_fetus_is_refused() -> None:
    with pytest.raises(InputError, match="standard deviations"):
        size_for_age(28.0, SizeScores(ac=4.0))


@pytest.mark.parametrize("presentation", list(Presentation))
def test_the_fetus_lies_as_it_is_asked_to(presentation: Presentation) -> None:
    for seed in range(10):
        scene = random_scene(np.random.default_rng(seed), 30.0, presentation=presentation)
        assert scene.rotation @ scene.rotation.T == pytest.approx(np.eye(3), abs=1e-9)
        assert np.linalg.det(scene.rotation) == pytest.approx(1.0)
        head = scene.to_world(scene.fetus.head_center) - scene.origin
        if presentation is Presentation.TRANSVERSE:
            assert abs(head[0]) > abs(head[1])
        else:
            assert (head[1] > 0) == (presentation is Presentation.BREECH)


def test_each_plane_shows_what_its_guideline_asks_for() -> None:
    """ISUOG 2019: thalami and cavum but no cerebellum; stomach and portal sinus but no kidney."""
    x, z = np.meshgrid(np.linspace(-90, 90, 360), np.linspace(0, 220, 440))
    for seed in range(12):
        scene = random_scene(np.random.default_rng(seed), 20.0 + seed)
        head = set(np.unique(scene.labels(scene.plane_of(PlaneName.HEAD).points(x, z))))
        assert {Tissue.THALAMUS, Tissue.MIDLINE, Tissue.CHOROID, Tissue.BONE} <= head
        assert Tissue.CEREBELLUM not in head
        belly = set(np.unique(scene.labels(scene.plane_of(PlaneName.ABDOMEN).points(x, z))))
        assert {Tissue.STOMACH, Tissue.VEIN, Tissue.LIVER, Tissue.BONE} <= belly
        assert not belly & {Tissue.KIDNEY, Tissue.HEART, Tissue.BRAIN}


def test_there_is_less_fluid_the_older_the_fetus() -> None:
    """Fluid that lies beside the abdomen, as share of its section; late in pregnancy the wall lies on the skin."""
    x, z = np.meshgrid(np.linspace(-110, 110, 221), np.linspace(0, 230, 231))
    shares = {}
    for weeks in (20.0, 28.0, 36.0):
        found = []
        for seed in range(12):
            scene = random_scene(np.random.default_rng(seed), weeks)
            plane = scene.plane_of(PlaneName.ABDOMEN)
            fluid = int((scene.labels(plane.points(x, z)) == Tissue.FLUID).sum())
            found.append(fluid / (math.pi * scene.fetus.diameter_mm**2 / 4))
        shares[weeks] = float(np.mean(found))
    assert shares[20.0] > shares[28.0] > shares[36.0]
    assert shares[20.0] < 3
    assert shares[36.0] < 0.5


def test_a_limb_has_no_skin_within_the_trunk() -> None:
    """Else its outline would be drawn through the pelvis."""
    for seed in range(6):
        fetus = _scene(seed).fetus
        d = fetus.diameter_mm
        points = np.stack(np.meshgrid(*(np.linspace(-0.6, 0.6, 41) * d,) * 3, indexing="ij"), axis=-1)
        labels = fetus.labels(Tiles.of(points.reshape(-1, 1, 3)))
        own = Tiles.of(points.reshape(-1, 1, 3)).join(labels).reshape(points.shape[:-1])
        assert not (own[fetus.trunk_rho(points) < 0.9] == Tissue.FETAL_SKIN).any()


def test_the_probe_stands_on_the_skin() -> None:
    """Nothing but skin before it, and the layers of the wall after it."""
    for seed in range(12):
        scene = _scene(seed)
        for name in (PlaneName.HEAD, PlaneName.ABDOMEN, PlaneName.FEMUR):
            plane = scene.plane_of(name)
            depths = np.array([-3.0, 1.0, 3.5])
            labels = scene.labels(plane.points(np.zeros(3), depths))
            assert labels.tolist() == [Tissue.SKIN, Tissue.SKIN, Tissue.FAT]


def test_points_of_any_shape_have_the_same_labels() -> None:
    """Tiles are only a way to be quick."""
    scene = _scene(3)
    plane = scene.plane_of(PlaneName.HEAD)
    x, z = np.meshgrid(np.linspace(-60, 60, 53), np.linspace(0, 150, 71))
    points = plane.points(x, z)
    labels, material = scene.tissue_and_material(points)
    assert labels.shape == x.shape
    assert labels.dtype == np.uint8
    np.testing.assert_array_equal(scene.labels(points.reshape(-1, 3)).reshape(x.shape), labels)
    single = [int(scene.labels(points[row, column])) for row, column in ((0, 0), (40, 26), (70, 52))]
    assert single == [labels[0, 0], labels[40, 26], labels[70, 52]]
    fetal = np.isin(labels, (Tissue.BRAIN, Tissue.BONE, Tissue.THALAMUS))
    np.testing.assert_allclose(material[fetal], scene.to_fetus(points)[fetal], atol=1e-3)
    outside = labels <= Tissue.FLUID
    np.testing.assert_array_equal(material[outside], points[outside])
