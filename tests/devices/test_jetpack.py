"""JetPacks: every data file is one, and what stands on which Jetson Linux."""

from __future__ import annotations

from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError

from edgefetal_devices.errors import InputError
from edgefetal_devices.jetpack import JetPack, jetpack_of, read_jetpack, read_jetpacks
from edgefetal_devices.profile import profile_names, read_profile
from edgefetal_devices.versions import Version, parsed_version, written

JETPACKS = read_jetpacks()


def test_every_data_file_gives_releases_in_the_order_of_their_numbers() -> None:
    files = list((resources.files("edgefetal_devices") / "jetpacks").iterdir())
    assert len(files) == 8
    names = [jetpack.name for jetpack in JETPACKS]
    assert len(set(names)) == len(names) == 23
    assert (names[0], names[-1]) == ("4.6.1", "7.2.2")
    assert names == sorted(names, key=lambda name: [int(part) for part in name.split(".")])


@pytest.mark.parametrize("jetpack", JETPACKS, ids=lambda jetpack: jetpack.name)
def test_a_release_names_boards_that_exist(jetpack: JetPack) -> None:
    assert jetpack.source
    assert set(jetpack.boards) <= set(profile_names())
    if jetpack.separate is not None:
        assert set(jetpack.separate.dla_boards) <= set(jetpack.separate.boards) <= set(jetpack.boards)
        for name in jetpack.separate.dla_boards:
            gpu = read_profile(name).gpu
            assert gpu is not None
            assert gpu.dla_cores > 0


def test_no_jetson_linux_belongs_to_two_releases() -> None:
    versions = [l4t for jetpack in JETPACKS for l4t in jetpack.l4t]
    assert len(set(versions)) == len(versions)


@pytest.mark.parametrize(
    ("l4t", "name", "tensorrt"),
    [
        ((32, 7, 4), "4.6.4", (8, 2, 1)),
        ((35, 4, 1), "5.1.2", (8, 5, 2)),
        ((36, 3, 0), "6.0", (8, 6, 2)),
        ((36, 4, 0), "6.1", (10, 3, 0)),
        ((36, 4, 3), "6.2", (10, 3, 0)),
        ((36, 4, 7), "6.2.1", (10, 3, 0)),
        ((36, 5, 0), "6.2.2", (10, 3, 0)),
        ((38, 2, 1), "7.0", (10, 13)),
        ((38, 4, 0), "7.1", (10, 13, 3)),
        ((39, 2, 0), "7.2", (10, 16, 2)),
        ((39, 2, 1), "7.2.1", (10, 16, 2)),
    ],
)
def test_jetson_linux_tells_the_jetpack(l4t: tuple[int, ...], name: str, tensorrt: tuple[int, ...]) -> None:
    found = jetpack_of(l4t)
    assert found is not None
    assert (found.name, found.tensorrt) == (name, tensorrt)


@pytest.mark.parametrize("l4t", [(36, 4), (36, 4, 99), (39, 2, 2), (31, 0, 2), ()])
def test_a_jetson_linux_that_is_not_in_the_table_is_no_jetpack(l4t: tuple[int, ...]) -> None:
    assert jetpack_of(l4t) is None


@pytest.mark.parametrize("name", ["", "6", "6.2.9", "../6.1", "6.1.toml"])
def test_an_unknown_release_is_refused_and_the_known_ones_offered(name: str) -> None:
    with pytest.raises(InputError) as caught:
        read_jetpack(name)
    assert repr(name) in str(caught.value)
    assert all(jetpack.name in str(caught.value) for jetpack in JETPACKS)


@pytest.mark.parametrize("text", ["", "10.", "10.3 ", "v10.3", "10.3-1", "10..3"])
def test_a_data_file_takes_no_version_that_is_not_numbers_with_dots(text: str) -> None:
    with pytest.raises(ValidationError, match="numbers with dots"):
        TypeAdapter(Version).validate_python(text)


@given(st.lists(st.integers(0, 999_999_999), min_size=1, max_size=5))
def test_a_version_survives_being_written(numbers: list[int]) -> None:
    assert parsed_version(written(tuple(numbers))) == tuple(numbers)
    assert parsed_version(written(tuple(numbers)) + ".post1") == tuple(numbers)


@given(st.text(max_size=30))
def test_any_text_is_a_version_or_none(text: str) -> None:
    version = parsed_version(text)
    assert version is None or all(part >= 0 for part in version)
