"""Stored pixel sizes: an entry is complete and plausible, or refused; nothing is guessed."""

from __future__ import annotations

import datetime as dt
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_devices.errors import EdgeFetalError, ScaleError
from edgefetal_runtime.scale import Scale
from edgefetal_runtime.sources.scale_profile import MIN_RELATIVE_SD, ScaleProfile, read_scale_profile

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = {
    "name": '"convex-16cm"',
    "probe": '"C5-2"',
    "depth_mm": "160",
    "capture": '"HDMI card 3"',
    "width_px": "1280",
    "height_px": "720",
    "x_mm_per_px": "0.241",
    "y_mm_per_px": "0.243",
    "relative_uncertainty": "0.008",
    "method": '"phantom"',
    "made_on": "2026-03-14",
}


def _entry(**changes: str | None) -> str:
    fields = {key: value for key, value in (FIELDS | changes).items() if value is not None}
    return "[[profile]]\n" + "".join(f"{key} = {value}\n" for key, value in fields.items())


def _file(folder: Path, *entries: str) -> Path:
    path = folder / "probes.toml"
    path.write_text("".join(entries))
    return path


def test_the_only_entry_needs_no_name(tmp_path: Path) -> None:
    profile = read_scale_profile(_file(tmp_path, _entry()), None)
    assert (profile.width_px, profile.height_px, profile.method) == (1280, 720, "phantom")
    origin = "profile convex-16cm (C5-2, 160 mm deep, by phantom on 2026-03-14)"
    assert profile.scale() == Scale(0.241, 0.243, origin, 0.008)


def test_one_of_several_is_chosen_by_name(tmp_path: Path) -> None:
    path = _file(tmp_path, _entry(), _entry(name='"linear"', x_mm_per_px="0.1", y_mm_per_px="0.1"))
    assert read_scale_profile(path, "linear").scale().x_mm_per_px == 0.1
    with pytest.raises(ScaleError, match="several profiles; choose one of convex-16cm, linear with --profile"):
        read_scale_profile(path, None)
    with pytest.raises(ScaleError, match="no profile 'sector'; choose one of convex-16cm, linear"):
        read_scale_profile(path, "sector")


@pytest.mark.parametrize(("stated", "taken"), [("0", 0.001), ("0.0", 0.001), ("0.0004", 0.001), ("0.002", 0.002)])
def test_no_entry_is_better_known_than_a_screen_can_be_measured(tmp_path: Path, stated: str, taken: float) -> None:
    scale = read_scale_profile(_file(tmp_path, _entry(relative_uncertainty=stated)), None).scale()
    assert scale.relative_uncertainty == taken >= MIN_RELATIVE_SD


def test_an_entry_of_a_day_to_come_is_refused_and_one_of_today_is_not(tmp_path: Path) -> None:
    today = dt.datetime.now().astimezone().date()
    assert read_scale_profile(_file(tmp_path, _entry(made_on=f"{today}")), None).made_on == today
    # Two days on, lest midnight pass in between.
    later = today + dt.timedelta(days=2)
    with pytest.raises(ScaleError, match=rf"made on {later}, which is still to come; mend made_on, or set"):
        read_scale_profile(_file(tmp_path, _entry(made_on=f"{later}")), None)


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ScaleError, match="two profiles of one name"):
        read_scale_profile(_file(tmp_path, _entry(), _entry()), "convex-16cm")


@pytest.mark.parametrize("field", sorted(FIELDS))
def test_every_field_is_needed(tmp_path: Path, field: str) -> None:
    with pytest.raises(ScaleError, match=rf"profile\.0\.{field}: Field required; mend the entry"):
        read_scale_profile(_file(tmp_path, _entry(**{field: None})), None)


@pytest.mark.parametrize(
    "changes",
    [
        {"mm_per_px": "0.2"},
        {"width_px": "0"},
        {"width_px": "1280.5"},
        {"height_px": "-720"},
        {"depth_mm": "0"},
        {"depth_mm": "16000"},
        {"method": '"guess"'},
        {"made_on": '"yesterday"'},
        {"name": '""'},
        {"x_mm_per_px": "0"},
        {"x_mm_per_px": "nan"},
        {"y_mm_per_px": "2.41"},
        {"x_mm_per_px": "0.00241"},
        {"relative_uncertainty": "0.2"},
        {"relative_uncertainty": "-0.01"},
        {"relative_uncertainty": "nan"},
    ],
)
def test_what_is_unknown_or_impossible_is_refused(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(ScaleError):
        read_scale_profile(_file(tmp_path, _entry(**changes)), None)


@pytest.mark.parametrize("content", ["", "[[profile", "profile = 3", "[[profiles]]\nname = 1", "profile = []"])
def test_a_file_without_entries_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(ScaleError, match=r"probes\.toml.*docs/scale\.md"):
        read_scale_profile(_file(tmp_path, content), None)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ScaleError, match=r"none\.toml cannot be read as TOML"):
        read_scale_profile(tmp_path / "none.toml", None)


@pytest.fixture(scope="module")
def random_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("profiles") / "random.toml"


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    content=st.binary(max_size=100)
    | st.dictionaries(
        st.sampled_from(sorted(FIELDS)), st.sampled_from(["0", "-1", "nan", '"x"', "[]", "1e400", "1"])
    ).map(lambda changes: _entry(**changes).encode())
)
def test_any_file_is_a_plausible_profile_or_a_user_error(random_path: Path, content: bytes) -> None:
    random_path.write_bytes(content)
    try:
        profile = read_scale_profile(random_path, None)
    except EdgeFetalError:
        return
    assert isinstance(profile, ScaleProfile)
    assert profile.scale()
