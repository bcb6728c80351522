"""What is refused, with which reason: over every board, JetPack, precision and DLA."""

from __future__ import annotations

import pytest

from edgefetal_devices.errors import InputError
from edgefetal_devices.jetpack import JetPack, read_jetpack, read_jetpacks
from edgefetal_devices.possible import (
    OLDEST_PYTHON,
    PRECISIONS,
    require_possible,
    sufficient_jetpacks,
    why_not,
    why_not_precision,
)
from edgefetal_devices.profile import Profile, read_profile, read_profiles

ORIN_JETPACKS = {"6.1", "6.2", "6.2.1", "6.2.2", "7.2", "7.2.1", "7.2.2"}
THOR_JETPACKS = {"7.0", "7.1", "7.2", "7.2.1", "7.2.2"}
# Written by hand, so that a change of a data file that lets in more than this is noticed.
ALLOWED = {
    "jetson-nano-4gb": set(),
    "jetson-tx2": set(),
    "jetson-xavier-nx": set(),
    "jetson-agx-xavier": set(),
    "jetson-orin-nano-4gb": ORIN_JETPACKS,
    "jetson-orin-nano-8gb": ORIN_JETPACKS,
    "jetson-orin-nx-8gb": ORIN_JETPACKS,
    "jetson-orin-nx-16gb": ORIN_JETPACKS,
    "jetson-agx-orin-32gb": ORIN_JETPACKS,
    "jetson-agx-orin-64gb": ORIN_JETPACKS,
    "jetson-thor": THOR_JETPACKS,
    "jetson-thor-t4000": THOR_JETPACKS - {"7.0"},
}
BOARDS = [read_profile(name) for name in ALLOWED]
JETPACKS = read_jetpacks()
AGX_ORIN = ("jetson-agx-orin-32gb", "jetson-agx-orin-64gb")


def asked(
    board: str,
    precision: str = "fp16",
    jetpack: str | None = None,
    tensorrt: tuple[int, ...] | None = None,
    *,
    dla: bool = False,
) -> str | None:
    release = None if jetpack is None else read_jetpack(jetpack)
    return why_not(read_profile(board), precision=precision, jetpack=release, tensorrt=tensorrt, dla=dla)


def test_the_table_of_this_test_has_every_jetson() -> None:
    assert set(ALLOWED) == {profile.name for profile in read_profiles() if profile.is_jetson}


@pytest.mark.parametrize("profile", BOARDS, ids=lambda profile: profile.name)
@pytest.mark.parametrize("jetpack", JETPACKS, ids=lambda jetpack: jetpack.name)
def test_every_pair_of_board_and_jetpack(profile: Profile, jetpack: JetPack) -> None:
    reason = why_not(profile, precision="fp16", jetpack=jetpack, tensorrt=None, dla=False)
    if jetpack.name in ALLOWED[profile.name]:
        assert reason is None
        return
    assert reason is not None
    assert f"JetPack {jetpack.name}" in reason
    assert profile.title in reason
    if profile.name not in jetpack.boards:
        assert "is not made for" in reason
    else:
        assert "TensorRT 8." in reason
        assert "10.3 is needed" in reason
        assert ("Python 3.6" in reason or "Python 3.8" in reason) == (jetpack.python < OLDEST_PYTHON)
    # What to choose instead.
    if ALLOWED[profile.name]:
        assert all(name in reason for name in ALLOWED[profile.name])
    else:
        assert "Choose a Jetson Orin or Thor" in reason
    with pytest.raises(InputError, match="JetPack"):
        require_possible(profile, precision="fp16", jetpack=jetpack, tensorrt=None, dla=False)


def test_no_pair_shares_its_reason_with_another() -> None:
    reasons = [
        reason
        for profile in BOARDS
        for jetpack in JETPACKS
        if (reason := why_not(profile, precision="fp16", jetpack=jetpack, tensorrt=None, dla=False)) is not None
    ]
    assert len(set(reasons)) == len(reasons) == len(BOARDS) * len(JETPACKS) - sum(map(len, ALLOWED.values()))


@pytest.mark.parametrize("profile", BOARDS, ids=lambda profile: profile.name)
def test_a_board_of_which_the_jetpack_is_not_known_is_refused_only_where_none_suffices(profile: Profile) -> None:
    reason = why_not(profile, precision="auto", jetpack=None, tensorrt=None, dla=False)
    assert (reason is None) == bool(ALLOWED[profile.name])
    assert {jetpack.name for jetpack in sufficient_jetpacks(profile)} == ALLOWED[profile.name]


@pytest.mark.parametrize("board", ["jetson-nano", "jetson-tx2"])
def test_int8_that_is_not_in_the_hardware(board: str) -> None:
    reason = asked(board, "int8")
    assert reason is not None
    assert "has no INT8: FP16 is the least it computes in" in reason
    assert "cpu-arm" in reason
    fp16 = asked(board, "fp16")
    assert fp16 is not None
    assert "INT8" not in fp16


@pytest.mark.parametrize("profile", read_profiles(), ids=lambda profile: profile.name)
def test_a_precision_is_refused_where_the_hardware_has_it_not(profile: Profile) -> None:
    for precision in PRECISIONS:
        assert (why_not_precision(profile, precision) is None) == (precision in profile.precisions)
    assert why_not_precision(profile, "auto") is None
    for precision in ("fp8", "int4", "", "INT8"):
        reason = why_not_precision(profile, precision)
        assert reason is not None
        assert "fp32, fp16, int8 or auto" in reason


def test_a_processor_needs_no_jetpack_but_its_python() -> None:
    assert asked("cpu-arm", "int8", "6.2") is None
    assert asked("cpu-arm", "int8", None) is None
    old = asked("cpu-arm", "int8", "4.6.1")
    assert old is not None
    assert "Python 3.6, and 3.10 is needed" in old
    assert "does not compute in FP16" in (asked("cpu-arm", "fp16") or "")
    assert "has no JetPack" in (asked("cpu-x86", "int8", "6.2") or "")
    assert "has no DLA" in (asked("cpu-x86", "int8", dla=True) or "")


def test_a_desktop_has_no_jetpack_and_the_versions_of_its_tensorrt_count_from_1() -> None:
    assert asked("rtx-desktop", "int8", tensorrt=(1, 5)) is None
    assert "is no Jetson" in (asked("rtx-desktop", "int8", "6.2") or "")
    assert "has no DLA" in (asked("rtx-desktop", dla=True) or "")


@pytest.mark.parametrize(
    ("board", "jetpack", "tensorrt", "allowed"),
    [
        ("jetson-orin-nx-16gb", "6.2", (10, 3), True),
        ("jetson-orin-nx-16gb", "6.2", (10, 7, 0), True),
        ("jetson-orin-nx-16gb", None, (10, 3), True),
        ("jetson-orin-nx-16gb", "6.2", (10, 2), False),
        ("jetson-orin-nx-16gb", None, (8, 6, 2), False),
        # The documents of TensorRT 11.4.1 name AGX Orin and Thor alone, and JetPack 7.2.2.
        ("jetson-orin-nx-16gb", "7.2.2", (11, 4, 1), False),
        ("jetson-orin-nano-8gb", "7.2.2", (11, 4, 1), False),
        ("jetson-agx-orin-32gb", "7.2.2", (11, 4, 1), True),
        ("jetson-agx-orin-32gb", "7.2.2", (11, 5), True),
        ("jetson-agx-orin-32gb", None, (11, 4, 1), True),
        ("jetson-agx-orin-32gb", "7.2.2", (11, 4, 0), False),
        ("jetson-agx-orin-32gb", "7.2.2", (11, 0), False),
        ("jetson-agx-orin-32gb", "7.2.1", (11, 4, 1), False),
        ("jetson-agx-orin-32gb", "6.2", (11, 4, 1), False),
        ("jetson-thor", "7.2.2", (11, 4, 1), True),
        ("jetson-thor", "7.1", (11, 4, 1), False),
    ],
)
def test_a_tensorrt_in_place_of_the_jetpacks_own(
    board: str,
    jetpack: str | None,
    tensorrt: tuple[int, ...],
    allowed: bool,  # noqa: FBT001
) -> None:
    reason = asked(board, "fp16", jetpack, tensorrt)
    assert (reason is None) == allowed
    if reason is not None:
        assert f"TensorRT {'.'.join(map(str, tensorrt))}" in reason


@pytest.mark.parametrize("profile", BOARDS, ids=lambda profile: profile.name)
@pytest.mark.parametrize("jetpack", [*JETPACKS, None], ids=lambda jetpack: "?" if jetpack is None else jetpack.name)
@pytest.mark.parametrize("tensorrt", [None, (10, 3), (10, 13), (11, 4, 1), (11, 5)], ids=str)
def test_a_dla_is_had_on_an_agx_orin_alone_with_all_that_it_needs(
    profile: Profile, jetpack: JetPack | None, tensorrt: tuple[int, ...] | None
) -> None:
    reason = why_not(profile, precision="int8", jetpack=jetpack, tensorrt=tensorrt, dla=True)
    new = tensorrt is not None and tensorrt >= (11, 4, 1)
    allowed = profile.name in AGX_ORIN and jetpack is not None and jetpack.name == "7.2.2" and new
    assert (reason is None) == allowed


@pytest.mark.parametrize(
    ("board", "jetpack", "tensorrt", "says"),
    [
        ("jetson-thor", "7.2.2", (11, 4, 1), "has no DLA. Leave the DLA out"),
        ("jetson-orin-nano-8gb", "7.2", None, "has no DLA. Leave the DLA out"),
        ("jetson-orin-nx-16gb", "6.2", None, "name Jetson AGX Orin alone"),
        ("jetson-orin-nx-8gb", None, None, "name Jetson AGX Orin alone"),
        ("jetson-agx-orin-64gb", "6.2", None, "from a calibration table alone, which edgefetal does not write"),
        ("jetson-agx-orin-64gb", "6.2", (10, 7), "from a calibration table alone"),
        ("jetson-agx-orin-64gb", "6.2", (10, 8), "TensorRT 10.8 has no DLA"),
        ("jetson-agx-orin-64gb", "7.2", None, "TensorRT 10.16.2 has no DLA"),
        ("jetson-agx-orin-64gb", "7.2.2", None, "say which TensorRT it has"),
        ("jetson-agx-orin-64gb", None, (11, 4, 1), "say which JetPack it has"),
    ],
)
def test_why_there_is_no_dla(board: str, jetpack: str | None, tensorrt: tuple[int, ...] | None, says: str) -> None:
    reason = asked(board, "int8", jetpack, tensorrt, dla=True)
    assert reason is not None
    assert says in reason
    assert "leave the dla out" in reason.lower()


def test_a_later_jetpack_has_no_dla_until_its_data_file_says_so() -> None:
    later = read_jetpack("7.2").model_copy(update={"name": "7.9", "tensorrt": (11, 5)})
    reason = why_not(read_profile("jetson-agx-orin-64gb"), precision="int8", jetpack=later, tensorrt=None, dla=True)
    assert reason is not None
    assert "and this is JetPack 7.9" in reason


def test_a_dla_computes_nothing_of_a_float_network() -> None:
    reason = asked("jetson-agx-orin-64gb", "fp32", "7.2.2", (11, 4, 1), dla=True)
    assert reason is not None
    assert "FP16 and INT8 alone" in reason
    for precision in ("fp16", "int8", "auto"):
        assert asked("jetson-agx-orin-64gb", precision, "7.2.2", (11, 4, 1), dla=True) is None


def test_what_is_possible_is_let_through() -> None:
    require_possible(
        read_profile("jetson-orin-nano-8gb"), precision="int8", jetpack=read_jetpack("6.2"), tensorrt=None, dla=False
    )
