"""Device profiles and INT8 recipes: every data file is one, and an unknown name is refused with a way out."""

from __future__ import annotations

import platform
from importlib import resources

import pytest
from pydantic import ValidationError

from edgefetal_devices.errors import InputError
from edgefetal_devices.profile import (
    Int8Recipe,
    Profile,
    int8_recipe_names,
    is_this_machine,
    profile_names,
    read_int8_recipe,
    read_profile,
    read_profiles,
)
from edgefetal_runtime.infer.backends import TABLE


def test_every_data_file_is_listed() -> None:
    files = {file.name for file in (resources.files("edgefetal_devices") / "profiles").iterdir()}
    assert {f"{name}.toml" for name in profile_names()} == {name for name in files if name.endswith(".toml")}
    assert {"cpu-arm", "cpu-x86", "cpu-x86-openvino"} <= set(profile_names())


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_is_complete_and_carries_the_name_of_its_file(name: str) -> None:
    profile = read_profile(name)
    assert profile.name == name
    assert profile.title
    assert profile.machines
    assert profile.back_end in {"tensorrt", *(entry.name for entry in TABLE)}
    assert (profile.back_end == "tensorrt") == (profile.gpu is not None) == (profile.int8.name == "tensorrt")
    assert profile.source
    assert len(set(profile.precisions)) == len(profile.precisions)
    assert not set(profile.aliases) & set(profile_names())
    assert profile.int8 == read_int8_recipe(profile.int8.name)


def test_every_recipe_file_is_listed() -> None:
    files = {file.name for file in (resources.files("edgefetal_devices") / "int8").iterdir()}
    assert {f"{name}.toml" for name in int8_recipe_names()} == {name for name in files if name.endswith(".toml")}
    assert set(int8_recipe_names()) == {"onnxruntime-x86", "onnxruntime-arm", "openvino", "tensorrt"}


@pytest.mark.parametrize("name", int8_recipe_names())
def test_a_recipe_is_complete_and_carries_the_name_of_its_file(name: str) -> None:
    recipe = read_int8_recipe(name)
    assert recipe.name == name
    assert recipe.reason
    assert recipe.per_channel
    assert recipe.float_outputs
    assert {"LayerNormalization", "Softmax", "Gelu", "Erf", "Add"} <= set(recipe.float_operators)
    assert list(recipe.float_operators) == sorted(recipe.float_operators)
    # Unsigned activations have no middle for a zero point of 0.
    assert not (recipe.symmetric_activations and recipe.activations == "uint8")


@pytest.mark.parametrize(
    ("profile", "recipe", "back_end"),
    [
        ("cpu-x86", "onnxruntime-x86", "onnxruntime"),
        ("cpu-arm", "onnxruntime-arm", "onnxruntime"),
        ("cpu-x86-openvino", "openvino", "openvino"),
    ],
)
def test_a_profile_names_its_recipe_and_its_back_end(profile: str, recipe: str, back_end: str) -> None:
    assert (read_profile(profile).int8.name, read_profile(profile).back_end) == (recipe, back_end)


@pytest.mark.parametrize(("machine", "here"), [("x86_64", {"cpu-x86", "cpu-x86-openvino"}), ("aarch64", {"cpu-arm"})])
def test_this_machine_is_that_of_every_profile_of_its_processor(
    machine: str, here: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert {name for name in profile_names() if is_this_machine(read_profile(name))} == here


@pytest.mark.parametrize(
    ("alias", "name"),
    [
        ("jetson-nano", "jetson-nano-4gb"),
        ("jetson-orin-nano-8gb-super", "jetson-orin-nano-8gb"),
        ("jetson-thor-t5000", "jetson-thor"),
    ],
)
def test_an_alias_answers_with_the_one_profile(alias: str, name: str) -> None:
    assert read_profile(alias) == read_profile(name)
    assert alias not in profile_names()


def test_no_alias_and_no_part_number_is_used_twice() -> None:
    profiles = read_profiles()
    aliases = [alias for profile in profiles for alias in profile.aliases]
    assert len(set(aliases)) == len(aliases)
    parts = [part for profile in profiles if profile.gpu is not None for part in profile.gpu.modules]
    assert len(set(parts)) == len(parts)


JETSONS = [profile.name for profile in read_profiles() if profile.is_jetson]


@pytest.mark.parametrize("name", JETSONS)
def test_a_jetson_shares_its_memory_and_its_modes_are_numbered_once_a_table(name: str) -> None:
    gpu = read_profile(name).gpu
    assert gpu is not None
    assert gpu.memory_shared
    assert gpu.tensorrt == "tensorrt"
    assert len(gpu.compute_capabilities) == 1
    assert (gpu.workspace_bytes is None) == (min(gpu.memory_gib) > 16 or name == "jetson-agx-xavier")
    if gpu.workspace_bytes is not None:
        assert gpu.workspace_bytes * 8 == min(gpu.memory_gib) << 30
    numbers = [(mode.table, mode.number) for mode in gpu.power_modes]
    assert len(set(numbers)) == len(numbers)


@pytest.mark.parametrize(
    ("name", "capability", "precisions", "dla_cores", "encoder"),
    [
        ("jetson-nano-4gb", "5.3", "fp32 fp16", 0, True),
        ("jetson-tx2", "6.2", "fp32 fp16", 0, True),
        ("jetson-xavier-nx", "7.2", "fp32 fp16 int8", 2, True),
        ("jetson-agx-xavier", "7.2", "fp32 fp16 int8", 2, True),
        ("jetson-orin-nano-4gb", "8.7", "fp32 fp16 int8", 0, False),
        ("jetson-orin-nano-8gb", "8.7", "fp32 fp16 int8", 0, False),
        ("jetson-orin-nx-8gb", "8.7", "fp32 fp16 int8", 1, True),
        ("jetson-orin-nx-16gb", "8.7", "fp32 fp16 int8", 2, True),
        ("jetson-agx-orin-32gb", "8.7", "fp32 fp16 int8", 2, True),
        ("jetson-agx-orin-64gb", "8.7", "fp32 fp16 int8", 2, True),
        ("jetson-thor", "11.0", "fp32 fp16 int8 fp8", 0, True),
        ("jetson-thor-t4000", "11.0", "fp32 fp16 int8 fp8", 0, True),
    ],
)
def test_what_the_boards_are(name: str, capability: str, precisions: str, dla_cores: int, encoder: bool) -> None:  # noqa: FBT001
    profile = read_profile(name)
    assert profile.gpu is not None
    assert profile.gpu.compute_capabilities == (capability,)
    assert profile.precisions == tuple(precisions.split())
    assert (profile.gpu.dla_cores, profile.gpu.encoder) == (dla_cores, encoder)


def test_every_board_of_the_table_above_is_there_and_no_other() -> None:
    assert sorted(JETSONS) == sorted(name for name in profile_names() if name.startswith("jetson-"))
    assert len(JETSONS) == 12


def test_tensorrt_takes_symmetric_signed_values_and_float_biases() -> None:
    recipe = read_int8_recipe("tensorrt")
    assert (recipe.activations, recipe.weights, recipe.symmetric_activations) == ("int8", "int8", True)
    assert not recipe.quantised_bias


@pytest.mark.parametrize("name", ["", "tensorRT", "../int8/tensorrt", "cpu-x86", "cpu"])
def test_an_unknown_recipe_is_refused_and_the_known_ones_offered(name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_int8_recipe(name)
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in int8_recipe_names())


@pytest.mark.parametrize(
    ("machine", "name"),
    [("x86_64", "cpu-x86"), ("AMD64", "cpu-x86"), ("aarch64", "cpu-arm"), ("arm64", "cpu-arm")],
)
def test_cpu_stands_for_the_processor_of_this_machine(machine: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert read_profile("cpu") == read_profile(name)


def test_a_processor_without_a_profile_is_named_and_the_others_offered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "machine", lambda: "riscv64")
    with pytest.raises(InputError, match=r"'cpu-riscv64'; choose one of cpu, cpu-arm, cpu-x86"):
        read_profile("cpu")


@pytest.mark.parametrize("name", ["", "jetson-nano-9000", "CPU-X86", "../profiles/cpu-x86", "cpu-x86.toml", "cpu x86"])
def test_an_unknown_name_is_refused_and_the_known_ones_offered(name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_profile(name)
    assert repr(name) in str(caught.value)
    assert all(known in str(caught.value) for known in profile_names())


def test_a_profile_cannot_be_changed_and_takes_no_unknown_field() -> None:
    profile = read_profile("cpu-x86")
    with pytest.raises(ValidationError, match="frozen"):
        profile.back_end = "other"  # type: ignore[misc]
    with pytest.raises(ValidationError, match="Extra inputs"):
        Profile.model_validate(profile.model_dump() | {"cores": 8})
    with pytest.raises(ValidationError, match="Extra inputs"):
        Int8Recipe.model_validate(profile.int8.model_dump() | {"bits": 4})
    with pytest.raises(ValidationError, match="uint8"):
        Int8Recipe.model_validate(profile.int8.model_dump() | {"activations": "int4"})
