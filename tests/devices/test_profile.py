"""Device profiles: every data file is one, `cpu` is this machine's, and an unknown name is refused with a way out."""

from __future__ import annotations

import platform
from importlib import resources

import pytest
from pydantic import ValidationError

from edgefetal_devices.errors import InputError
from edgefetal_devices.profile import Int8Recipe, Profile, profile_names, read_profile
from edgefetal_runtime.infer.backends import TABLE


def test_every_data_file_is_listed() -> None:
    files = {file.name for file in (resources.files("edgefetal_devices") / "profiles").iterdir()}
    assert {f"{name}.toml" for name in profile_names()} == {name for name in files if name.endswith(".toml")}
    assert {"cpu-arm", "cpu-x86"} <= set(profile_names())


@pytest.mark.parametrize("name", profile_names())
def test_a_profile_is_complete_and_carries_the_name_of_its_file(name: str) -> None:
    profile = read_profile(name)
    assert profile.name == name
    assert profile.title
    assert profile.back_end in {entry.name for entry in TABLE}
    assert profile.int8.activations in {"uint8", "int8"}
    assert profile.int8.weights == "int8"
    assert profile.int8.reason


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
        Profile.model_validate(profile.model_dump() | {"gpu": "none"})
    with pytest.raises(ValidationError, match="Extra inputs"):
        Int8Recipe.model_validate(profile.int8.model_dump() | {"bits": 4})
