"""Bundles: whole and unaltered, or refused by the name of what is wrong."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgefetal_devices.errors import BundleError
from edgefetal_runtime.infer.bundle import (
    EVIDENCE,
    GOLDEN,
    MANIFEST,
    MODEL,
    MODEL_CARD,
    REFERENCE,
    REQUIRED,
    SCHEMA_VERSION,
    SPLIT,
    Bundle,
    load_bundle,
    require_fit_for_clinic,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# What every message must end with: something to do.
WAY_OUT = re.compile(r"(copy the bundle again|build (it|the bundle) anew|upgrade edgefetal|remove them|give a folder)")


BAND = {"below": None, "half_width": 5.0, "n": 20}
INTERVALS = {
    "level": 0.9,
    "dataset": "hc18",
    "n_subjects": 2,
    "subjects": ["001", "002"],
    "digests": ["0" * 64, "1" * 64],
    "shared": 1.0,
    "bands": {"HC": [BAND]},
}


def _fields(folder: Path) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return fields


def test_the_starter_is_whole_and_known_by_the_hash_of_its_manifest(intact_bundle: Bundle) -> None:
    content = (intact_bundle.path / MANIFEST).read_bytes()
    assert intact_bundle.sha256 == hashlib.sha256(content).hexdigest()
    assert intact_bundle.manifest.schema_version == SCHEMA_VERSION
    assert set(REQUIRED) <= set(intact_bundle.manifest.files)


def test_a_copy_is_the_same_bundle(intact_bundle: Bundle, bundle_copy: Path) -> None:
    copied = load_bundle(bundle_copy)
    assert (copied.manifest, copied.sha256, copied.path) == (intact_bundle.manifest, intact_bundle.sha256, bundle_copy)


def test_a_file_that_the_manifest_lists_beyond_the_required_ones_is_welcome(
    bundle_copy: Path, rehash: Callable[[Path], None]
) -> None:
    (bundle_copy / "NOTICE.txt").write_text("licences")
    rehash(bundle_copy)
    assert load_bundle(bundle_copy).read("NOTICE.txt") == b"licences"


def test_intervals_come_back_as_they_were_written(bundle_copy: Path) -> None:
    _edited(bundle_copy, intervals=INTERVALS)
    intervals = load_bundle(bundle_copy).manifest.intervals
    assert intervals is not None
    assert intervals.model_dump(mode="json") == INTERVALS


def test_a_bundle_of_the_first_schema_has_no_intervals_and_still_loads(bundle_copy: Path) -> None:
    """Bundles that clinics have today were written before there were any."""
    fields = _fields(bundle_copy)
    fields.pop("intervals", None)
    (bundle_copy / MANIFEST).write_text(json.dumps(fields | {"schema_version": 1}))
    loaded = load_bundle(bundle_copy)
    assert (loaded.manifest.schema_version, loaded.manifest.intervals) == (1, None)


def _flip_first(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[0] ^= 1
    (folder / name).write_bytes(content)


def _flip_last(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 0x80
    (folder / name).write_bytes(content)


def _cut(folder: Path, name: str) -> None:
    (folder / name).write_bytes((folder / name).read_bytes()[:-1])


def _grow(folder: Path, name: str) -> None:
    with (folder / name).open("ab") as stream:
        stream.write(b"\n")


def _drop(folder: Path, name: str) -> None:
    (folder / name).unlink()


def _link(folder: Path, name: str) -> None:
    (folder / name).rename(folder.parent / name)
    (folder / name).symlink_to(folder.parent / name)


def _folder_instead(folder: Path, name: str) -> None:
    (folder / name).unlink()
    (folder / name).mkdir()


def _empty(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"")


@pytest.mark.parametrize("name", [MODEL, REFERENCE, GOLDEN, EVIDENCE, SPLIT, MODEL_CARD])
@pytest.mark.parametrize("damage", [_flip_first, _flip_last, _cut, _grow, _drop, _link, _folder_instead, _empty])
def test_a_damaged_file_is_refused_by_its_name_and_not_read_later(
    bundle_copy: Path, damage: Callable[[Path, str], None], name: str
) -> None:
    loaded = load_bundle(bundle_copy)
    assert hashlib.sha256(loaded.read(name)).hexdigest() == loaded.manifest.files[name]
    damage(bundle_copy, name)
    for read in (lambda: load_bundle(bundle_copy), lambda: loaded.read(name)):
        with pytest.raises(BundleError, match=re.escape(name)) as caught:
            read()
        assert WAY_OUT.search(str(caught.value))


def _edited(folder: Path, **changes: Any) -> None:
    (folder / MANIFEST).write_text(json.dumps(_fields(folder) | changes))


def _without(folder: Path, *keys: str) -> None:
    fields = _fields(folder)
    inner = fields
    for key in keys[:-1]:
        inner = inner[key]
    del inner[keys[-1]]
    (folder / MANIFEST).write_text(json.dumps(fields))


def _within(folder: Path, part: str, **changes: Any) -> None:
    _edited(folder, **{part: _fields(folder)[part] | changes})


def _text(folder: Path, text: str | bytes) -> None:
    (folder / MANIFEST).write_bytes(text.encode() if isinstance(text, str) else text)


SABOTAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "extra file": (lambda f: (f / "notes.txt").write_text("mine"), "notes.txt"),
    "extra hidden file": (lambda f: (f / ".DS_Store").write_text("mine"), ".DS_Store"),
    "extra folder": (lambda f: (f / "more").mkdir(), "more"),
    "absent folder": (shutil.rmtree, MANIFEST),
    "empty folder": (lambda f: (shutil.rmtree(f), f.mkdir()), MANIFEST),
    "file for a folder": (lambda f: (shutil.rmtree(f), f.write_text("bundle")), MANIFEST),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), MANIFEST),
    "manifest is a link": (lambda f: _link(f, MANIFEST), MANIFEST),
    "manifest is a folder": (lambda f: _folder_instead(f, MANIFEST), MANIFEST),
    "manifest is empty": (lambda f: _text(f, ""), MANIFEST),
    "manifest is no JSON": (lambda f: _text(f, "schema_version = 1"), MANIFEST),
    "manifest is cut": (lambda f: _text(f, (f / MANIFEST).read_bytes()[:-30]), MANIFEST),
    "manifest is binary": (lambda f: _text(f, bytes(range(256))), MANIFEST),
    "manifest is UTF-16": (lambda f: _text(f, (f / MANIFEST).read_text().encode("utf-16")), MANIFEST),
    "manifest is a list": (lambda f: _text(f, "[1]"), MANIFEST),
    "manifest is a number": (lambda f: _text(f, "1"), MANIFEST),
    "manifest is a word": (lambda f: _text(f, '"schema_version"'), MANIFEST),
    "manifest is null": (lambda f: _text(f, "null"), MANIFEST),
    "manifest is nested deep": (lambda f: _text(f, "[" * 200_000), MANIFEST),
    "manifest holds a deep field": (
        lambda f: _text(f, '{"schema_version": 1, "name": ' + "[" * 20_000 + "]" * 20_000 + "}"),
        MANIFEST,
    ),
    "manifest is huge": (lambda f: _edited(f, name="n" * 1_000_001), MANIFEST),
    "manifest holds an endless number": (lambda f: _text(f, '{"schema_version": ' + "1" * 9000 + "}"), MANIFEST),
    "newer schema": (lambda f: _edited(f, schema_version=SCHEMA_VERSION + 1), f"schema {SCHEMA_VERSION + 1}"),
    "newer schema with unknown fields": (
        lambda f: _edited(f, schema_version=SCHEMA_VERSION + 1, signature="s"),
        f"schema {SCHEMA_VERSION + 1}",
    ),
    "schema as text": (lambda f: _edited(f, schema_version=str(SCHEMA_VERSION)), "schema_version"),
    "newer schema as text": (lambda f: _edited(f, schema_version=str(SCHEMA_VERSION + 8)), "schema"),
    "newer schema as a float": (lambda f: _edited(f, schema_version=SCHEMA_VERSION + 8.0), "schema"),
    "schema before the first": (lambda f: _edited(f, schema_version=0), "schema"),
    "schema is true": (lambda f: _edited(f, schema_version=True), "schema_version"),
    "schema is null": (lambda f: _edited(f, schema_version=None), "schema_version"),
    "no schema": (lambda f: _without(f, "schema_version"), MANIFEST),
    "no heads": (lambda f: _without(f, "heads"), "heads"),
    "no mask": (lambda f: _without(f, "heads", "mask"), "heads.mask"),
    "no files": (lambda f: _without(f, "files"), "files"),
    "unknown field": (lambda f: _edited(f, colour="grey"), "colour"),
    "unknown inner field": (lambda f: _within(f, "preprocess", gamma=2.0), "preprocess.gamma"),
    "no input height": (lambda f: _within(f, "preprocess", height_px=0), "preprocess.height_px"),
    "infinite spread": (lambda f: _within(f, "preprocess", std=float("inf")), "preprocess.std"),
    "mean that is no number": (lambda f: _within(f, "preprocess", mean=float("nan")), "preprocess.mean"),
    "threshold that is no number": (lambda f: _within(f, "thresholds", plane_probability=float("nan")), "thresholds"),
    "threshold below any probability": (lambda f: _within(f, "thresholds", plane_probability=-0.1), "thresholds"),
    "threshold above any probability": (lambda f: _within(f, "thresholds", plane_probability=1.1), "thresholds"),
    "agreement that is no number": (lambda f: _within(f, "thresholds", agreement=float("nan")), "thresholds"),
    "agreement above any": (lambda f: _within(f, "thresholds", agreement=1.1), "thresholds"),
    "interval of no level": (lambda f: _edited(f, intervals=INTERVALS | {"level": 1.0}), "intervals.level"),
    "interval of negative width": (
        lambda f: _edited(f, intervals=INTERVALS | {"bands": {"HC": [BAND | {"half_width": -0.1}]}}),
        "intervals.bands.HC.0.half_width",
    ),
    "interval of endless width": (
        lambda f: _edited(f, intervals=INTERVALS | {"bands": {"HC": [BAND | {"half_width": float("inf")}]}}),
        "intervals.bands.HC.0.half_width",
    ),
    "interval fitted on nothing": (
        lambda f: _edited(f, intervals=INTERVALS | {"bands": {"HC": [BAND | {"n": 0}]}}),
        "intervals.bands.HC.0.n",
    ),
    "interval that shares more than all": (lambda f: _edited(f, intervals=INTERVALS | {"shared": 1.1}), "shared"),
    "half an interval": (lambda f: _edited(f, intervals={"level": 0.9}), "intervals"),
    "half a character": (lambda f: _text(f, '{"schema_version": 1, "name": "\\ud800"}'), MANIFEST),
    "budget as a word": (lambda f: _edited(f, budget_passed="yes"), "budget_passed"),
    "budget is null": (lambda f: _edited(f, budget_passed=None), "budget_passed"),
    "file not listed": (lambda f: _without(f, "files", SPLIT), SPLIT),
    "files as a list": (lambda f: _edited(f, files=list(_fields(f)["files"])), "files"),
    "hash is null": (lambda f: _within(f, "files", **{MODEL: None}), MODEL),
    "hash of another file": (lambda f: _within(f, "files", **{MODEL: _fields(f)["files"][REFERENCE]}), MODEL),
    "file name that no disk takes": (lambda f: _within(f, "files", **{"n" * 300: "0" * 64}), "n" * 300),
    "file name with a null byte": (lambda f: _within(f, "files", **{"a\0b": "0" * 64}), "a\\x00b"),
    "the manifest's own hash": (lambda f: _within(f, "files", **{MANIFEST: "0" * 64}), MANIFEST),
}


@pytest.mark.parametrize(("sabotage", "named"), SABOTAGE.values(), ids=SABOTAGE)
def test_sabotage_is_refused_by_name_with_a_way_out(
    bundle_copy: Path, sabotage: Callable[[Path], object], named: str
) -> None:
    sabotage(bundle_copy)
    with pytest.raises(BundleError) as caught:
        load_bundle(bundle_copy)
    message = str(caught.value)
    assert str(bundle_copy) in message
    assert named in message
    assert WAY_OUT.search(message)


def test_a_file_outside_the_folder_is_no_part_of_the_bundle(bundle_copy: Path) -> None:
    outside = bundle_copy.parent / "outside.txt"
    outside.write_text("not copied with the bundle")
    for name in ("../outside.txt", str(outside)):
        _within(bundle_copy, "files", **{name: hashlib.sha256(outside.read_bytes()).hexdigest()})
        with pytest.raises(BundleError, match=r"outside\.txt"):
            load_bundle(bundle_copy)
        _without(bundle_copy, "files", name)


def test_a_folder_name_that_no_disk_takes_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="is not a bundle"):
        load_bundle(tmp_path / ("n" * 300))


def test_a_bundle_within_its_budget_is_fit_for_the_clinic(intact_bundle: Bundle) -> None:
    require_fit_for_clinic(intact_bundle)


def test_a_bundle_beyond_its_budget_loads_but_is_not_fit_for_the_clinic(bundle_copy: Path) -> None:
    _edited(bundle_copy, budget_passed=False)
    loaded = load_bundle(bundle_copy)
    with pytest.raises(BundleError, match=rf"did not pass its accuracy budget \(see {EVIDENCE} in it\); train further"):
        require_fit_for_clinic(loaded)


@pytest.fixture(scope="module")
def manifest_alone(tmp_path_factory: pytest.TempPathFactory, intact_bundle: Bundle) -> Path:
    """A folder with a manifest and none of its files, so that no manifest at all can be accepted there."""
    folder = tmp_path_factory.mktemp("manifest")
    shutil.copy(intact_bundle.path / MANIFEST, folder)
    return folder


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.just("n" * 300),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(content=json_values.map(lambda value: json.dumps(value).encode()) | st.binary(max_size=60))
def test_random_manifests_are_user_errors(manifest_alone: Path, content: bytes) -> None:
    (manifest_alone / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError):
        load_bundle(manifest_alone)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_mutated_manifests_are_user_errors(manifest_alone: Path, intact_bundle: Bundle, data: st.DataObject) -> None:
    fields = _fields(intact_bundle.path)
    inner: Any = fields
    while True:
        key = data.draw(st.sampled_from(sorted(inner) if isinstance(inner, dict) else range(len(inner))))
        if not isinstance(inner[key], (dict, list)) or not inner[key] or data.draw(st.booleans()):
            break
        inner = inner[key]
    if data.draw(st.booleans()):
        inner[key] = data.draw(json_values)
    else:
        del inner[key]
    (manifest_alone / MANIFEST).write_text(json.dumps(fields))
    with pytest.raises(BundleError):
        load_bundle(manifest_alone)


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_manifests_with_wrong_bytes_are_user_errors(
    manifest_alone: Path, intact_bundle: Bundle, data: st.DataObject
) -> None:
    content = bytearray((intact_bundle.path / MANIFEST).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (manifest_alone / MANIFEST).write_bytes(content)
    with pytest.raises(BundleError):
        load_bundle(manifest_alone)
