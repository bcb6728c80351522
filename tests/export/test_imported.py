from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import onnxruntime
import pytest
import torch

from edgefetal_calibration.datasets.labelled import LabelledSweep
from edgefetal_devices.errors import InputError, OutputError
from edgefetal_export.teachers.imported import import_sononet, load_sononet, plane_namer
from edgefetal_export.teachers.sononet import CONTRACT_PLANES, PLANES, PREPROCESS
from edgefetal_runtime.infer.preprocess import preprocess
from edgefetal_runtime.sources.metaimage import open_metaimage
from edgefetal_runtime.sources.picture import read_grey

if TYPE_CHECKING:
    from pathlib import Path

LABELS = (
    "3VV", "4CH", "ABDOMINAL", "BRAIN-CB", "BRAIN-TV", "FEMUR", "KIDNEYS", "LIPS", "LVOT", "PROFILE", "RVOT",
    "SPINE-CORONAL", "SPINE-SAGITTAL",
)  # fmt: skip


@pytest.fixture(scope="module")
def imported(shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    weights = shared_data / "sononet" / "SonoNet16.npz"
    if not weights.is_file():
        pytest.skip(f"no weights at {weights}")
    out = tmp_path_factory.mktemp("imported") / "sononet"
    recipe = import_sononet(weights, out)
    assert recipe.published
    return out


def test_planes_are_named_through_the_one_preprocessing(imported: Path, shared_data: Path) -> None:
    _, network = load_sononet(imported)
    session = onnxruntime.InferenceSession(imported / "model.onnx")
    named = []
    for label in LABELS:
        picture = read_grey(shared_data / "sononet" / "example_images" / f"{label}.png")[115:734, 81:874]
        image, _ = preprocess(np.ascontiguousarray(picture), PREPROCESS)
        (graph_says,) = session.run(["plane"], {"image": image})
        with torch.inference_mode():
            assert np.allclose(graph_says, network(torch.from_numpy(image)).numpy(), atol=1e-3)
        named.append(PLANES[int(graph_says.argmax())])
    assert named == [plane for plane in PLANES if plane != "Background"]


@pytest.mark.parametrize(
    ("stamp", "plane"),
    [("2496062", "Brain (Tv.)"), ("2754103", "LVOT"), ("2927832", "Abdominal"), ("2947471", "Femur")],
)
def test_pictures_of_another_maker_are_named(imported: Path, shared_data: Path, stamp: str, plane: str) -> None:
    paths = list((shared_data / "pretus").glob(f"*{stamp}*.mhd"))
    if not paths:
        pytest.skip("no pictures of pretus")
    _, network = load_sononet(imported)
    frame = next(iter(open_metaimage(paths[0]).frames()))
    image, _ = preprocess(frame.pixels, PREPROCESS)
    with torch.inference_mode():
        assert PLANES[int(network(torch.from_numpy(image)).argmax())] == plane


def test_picture_of_one_grey_level_has_a_finite_answer(imported: Path) -> None:
    _, network = load_sononet(imported)
    with torch.inference_mode():
        assert torch.isfinite(network(torch.full((1, 1, 224, 288), 0.3))).all()


def test_sweep_is_named_in_the_words_of_the_contract(imported: Path, shared_data: Path) -> None:
    recipe, network = load_sononet(imported)
    pictures = [
        np.ascontiguousarray(read_grey(shared_data / "sononet" / "example_images" / f"{label}.png")[115:734, 81:874])
        for label in ("ABDOMINAL", "BRAIN-TV", "BRAIN-CB", "FEMUR", "LIPS")
    ]
    sweep = LabelledSweep("s", np.stack(pictures))
    assert plane_namer(recipe, network)(sweep) == ["abdomen", "head", "none", "femur", "none"]


def test_contract_names_planes_that_sononet_knows() -> None:
    assert set(CONTRACT_PLANES) < set(PLANES)


def test_attribution_travels_with_the_weights(imported: Path) -> None:
    recipe = json.loads((imported / "recipe.json").read_text())
    assert recipe["licence"] == "Apache-2.0"
    assert "Baumgartner" in recipe["attribution"]


def test_existing_folder_is_kept(imported: Path, shared_data: Path) -> None:
    with pytest.raises(OutputError, match="exists"):
        import_sononet(shared_data / "sononet" / "SonoNet16.npz", imported)


def test_other_weights_of_the_shape_must_be_asked_for(shared_data: Path, tmp_path: Path) -> None:
    original = shared_data / "sononet" / "SonoNet16.npz"
    if not original.is_file():
        pytest.skip(f"no weights at {original}")
    with np.load(original) as arrays:
        changed = {name: arrays[name] for name in arrays.files}
    changed["arr_0"] = changed["arr_0"] * np.float32(1.01)
    np.savez(tmp_path / "other.npz", **changed)
    with pytest.raises(InputError, match="--any-weights"):
        import_sononet(tmp_path / "other.npz", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert not import_sononet(tmp_path / "other.npz", tmp_path / "out", any_weights=True).published


def test_damaged_import_is_named(imported: Path, tmp_path: Path) -> None:
    (tmp_path / "recipe.json").write_bytes((imported / "recipe.json").read_bytes())
    (tmp_path / "model.safetensors").write_bytes((imported / "model.safetensors").read_bytes()[:1000])
    with pytest.raises(InputError, match="import sononet"):
        load_sononet(tmp_path)
