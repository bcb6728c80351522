"""The bundle: a folder that describes itself and proves that it is whole.

manifest.json    what this module reads; the hash of every other file
model.onnx       the graph that ships
reference.onnx   the same network in float
half.onnx        the same in FP16, in bundles for GPUs whose shipped graph is INT8
golden.npz       frames in, tensors and outputs out
evidence.json    how the shipped graph compares with the float one, case by case
evidence.html    the same for people
split.json       which subjects it was trained on, so that nobody evaluates on them by mistake
recipe.json      how it was trained
MODEL_CARD.md    the same for people
signature.json   who stands for all of this; the one file that the manifest does not list, and it may be absent
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from edgefetal_devices.errors import BundleError
from edgefetal_runtime.atomic import as_output_error, sync, write_file
from edgefetal_runtime.infer.preprocess import PreprocessSpec
from edgefetal_runtime.infer.signature import SIGNATURE, read_signer, sign_manifest
from edgefetal_runtime.infer.trust import Demand, Standing, machine_trust, require

if TYPE_CHECKING:
    from pathlib import Path

    from edgefetal_runtime.infer.keys import PublicKey, SigningKey
    from edgefetal_runtime.infer.trust import Trust

SCHEMA_VERSION = 3
MANIFEST, MODEL, REFERENCE, GOLDEN = "manifest.json", "model.onnx", "reference.onnx", "golden.npz"
EVIDENCE, SPLIT, RECIPE, MODEL_CARD = "evidence.json", "split.json", "recipe.json", "MODEL_CARD.md"
# For people; bundles of before it have none.
EVIDENCE_PAGE = "evidence.html"
# The same network in FP16, where only the device can tell whether the shipped INT8 is faster.
HALF = "half.onnx"
REQUIRED = (MODEL, REFERENCE, GOLDEN, EVIDENCE, SPLIT, RECIPE, MODEL_CARD)

# Names of the output contract: the structures of the mask and the planes that show them, and the plane that shows none.
HEAD, ABDOMEN, FEMUR, NO_PLANE = "head", "abdomen", "femur", "none"

# From this schema on the evidence says with which thresholds a bundle was judged.
_JUDGED_THRESHOLDS = 3

# A manifest is a few kilobytes; a file much larger than that is not one, and is not parsed.
_MAX_MANIFEST_BYTES = 1_000_000
# Files lie in the bundle's own folder and nowhere else.
_PLAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Heads(_Part):
    """The heads of the output contract that the network has.

    Args:
        mask: structures of the `mask` logits, in channel order; empty where the network has no such head, and then
            nothing can be measured with it.
        plane: classes of the `plane` logits, in order; empty where the network has no such head.
        quality: whether it has a `quality` logit; bundles of before that head do not say so and have none.
        skill: whether it has a `skill` logit; likewise.
    """

    mask: tuple[str, ...]
    plane: tuple[str, ...]
    quality: bool = False
    skill: bool = False


class Thresholds(_Part):
    """Decisions that the runtime takes from the bundle, fitted on its validation subjects.

    Args:
        plane_probability: least probability at which a frame counts as showing a plane; fitted on heads.
        planes: the same for structures that had validation frames of their own.
        agreement: least soft Dice between the network's probabilities and the ellipse fitted to them.
        coverage: least share of the outline that must be seen, by how well the network outlines what the picture cuts.
        quality: least quality at which a frame counts as good enough to measure; a half where nobody fitted it.
    """

    plane_probability: float = Field(ge=0, le=1)
    agreement: float = Field(ge=0, le=1)
    coverage: float = Field(default=0.0, ge=0, le=1)
    quality: float = Field(default=0.5, ge=0, le=1)
    planes: dict[str, Annotated[float, Field(ge=0, le=1)]] = Field(default_factory=dict)

    def least_probability(self, structure: str) -> float:
        """Return the least probability at which a frame counts as showing a structure's plane."""
        return self.planes.get(structure, self.plane_probability)


class LayerGroup(_Part):
    """What a group of layers computes in, and why.

    Args:
        layers: operators or node names of the group.
        precision: `int8` or `float32`.
        reason: why.
    """

    layers: tuple[str, ...]
    precision: str
    reason: str


class Calibration(_Part):
    """Where the INT8 ranges came from.

    Args:
        dataset: kind of the dataset.
        part: part of the split that the frames were drawn from.
        method: how ranges were taken from the activations.
        frames: names of the frames.
        sha256: hash over the frames' content hashes, in order.
    """

    dataset: str
    part: str
    method: str
    frames: tuple[str, ...]
    sha256: str


class Training(_Part):
    """What the network was trained on.

    Args:
        recipe: name of the recipe.
        dataset: kind of the dataset.
        licence: licence of the data.
        attribution: the sentence that the licence asks for.
        subjects: number of subjects in each part of the split.
        parameters: number of trained numbers.
    """

    recipe: str
    dataset: str
    licence: str
    attribution: str
    subjects: dict[str, int]
    parameters: int


class IntervalBand(_Part):
    """How far measured values of one size lie from the truth.

    Args:
        below: upper end of the band of measured values, exclusive; null in the last one.
        half_width: the truth lies within this of the measured value in `level` of the cases.
        n: how many values it was fitted on.
    """

    below: float | None
    half_width: float = Field(ge=0, allow_inf_nan=False)
    n: int = Field(gt=0)


class Intervals(_Part):
    """Split-conformal intervals of single frames, fitted on subjects that were used for nothing else.

    Args:
        level: share of the truths that they are to hold.
        dataset: kind of the dataset.
        n_subjects: how many subjects they were fitted on.
        subjects: these, by which nobody judges the intervals on them by mistake.
        digests: content hash of each of their pictures.
        shared: share of the error's variance that all frames of one examination have in common, which no number of
            frames averages away; an upper bound.
        bands: bands of each measure by its name, from small to large.
    """

    level: float = Field(gt=0, lt=1)
    dataset: str
    n_subjects: int
    subjects: tuple[str, ...]
    digests: tuple[str, ...]
    shared: float = Field(ge=0, le=1)
    bands: dict[str, tuple[IntervalBand, ...]]


class Manifest(_Part):
    """`manifest.json`.

    Args:
        schema_version: version of this layout.
        name: the bundle's name.
        version: version of edgefetal that built it.
        device: profile that it was built for.
        heads: heads of the network.
        preprocess: the one preprocessing.
        thresholds: decisions.
        intervals: how far measured values lie from the truth, or null where no unused subjects were left to fit it on.
        layers: precision of each group of layers.
        calibration: provenance of the INT8 ranges.
        training: provenance of the weights.
        simulated: structures that the network knows from simulated pictures alone, which are measured on simulations
            only.
        budget_passed: whether the shipped graph stayed within its accuracy budget against the float one; a bundle
            that did not is for looking at, and does not run in the clinic.
        tools: versions of the tools that made it.
        files: SHA-256 of every other file.
    """

    schema_version: int = Field(ge=1)
    name: str
    version: str
    device: str
    heads: Heads
    preprocess: PreprocessSpec
    thresholds: Thresholds
    intervals: Intervals | None = None
    layers: tuple[LayerGroup, ...]
    calibration: Calibration
    training: Training
    simulated: tuple[str, ...] = ()
    budget_passed: bool
    tools: dict[str, str]
    files: dict[str, str]


@dataclass(frozen=True)
class Bundle:
    """A verified bundle.

    Args:
        path: its folder.
        manifest: its manifest.
        sha256: hash of `manifest.json`, which covers every file through the hashes in it.
        signed_by: the key whose good signature it bears, or None where it bears none.
        standing: what is known of its origin by whom it was loaded for.
    """

    path: Path
    manifest: Manifest
    sha256: str
    signed_by: PublicKey | None
    standing: Standing

    @property
    def signer(self) -> str | None:
        """Return the id of the key that signed it, or None."""
        return None if self.signed_by is None else self.signed_by.key_id

    @property
    def trusted(self) -> bool:
        """Say whether a trusted key signed it, or it came inside the package."""
        return self.standing in (Standing.TRUSTED, Standing.PACKAGED)

    def read(self, name: str) -> bytes:
        """Read a file and check it again, so that what is used is what was verified.

        Raises:
            BundleError: the file is missing, a link, or not what the manifest says.
        """
        return _read_verified(self.path, name, self.manifest.files[name])


def _read_verified(folder: Path, name: str, sha256: str) -> bytes:
    path = folder / name
    if not os.path.isfile(path) or path.is_symlink():  # noqa: PTH113 - False for a name that no disk takes
        message = f"{folder}: {name} is missing or is a link; copy the bundle again or build it anew."
        raise BundleError(message)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != sha256:
        message = f"{folder}: {name} is not the file that was built (its hash differs); copy the bundle again."
        raise BundleError(message)
    return content


def _parse_manifest(folder: Path, content: bytes) -> Manifest:
    """Read a manifest, naming a newer layout as such before its unknown fields are complained about."""
    try:
        fields = json.loads(content)
        version = fields["schema_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{folder / MANIFEST} is not a manifest; copy the bundle again or build it anew."
        raise BundleError(message) from error
    if isinstance(version, int) and version > SCHEMA_VERSION:
        message = (
            f"{folder} has manifest schema {version} and this edgefetal reads up to {SCHEMA_VERSION}; "
            "upgrade edgefetal, or build the bundle with this version."
        )
        raise BundleError(message)
    try:
        return Manifest.model_validate_json(content, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = f"{folder / MANIFEST} is not valid at {where!r} ({first['msg']}); build the bundle anew."
        raise BundleError(message) from error


@dataclass(frozen=True)
class _Unread:
    """A bundle of which nothing was parsed but its signature.

    Args:
        path: its folder.
        content: the bytes of its manifest.
        signed_by: the key that signed these, or None.
    """

    path: Path
    content: bytes
    signed_by: PublicKey | None


def _unread(folder: Path) -> _Unread:
    path = folder / MANIFEST
    if not os.path.isfile(path) or path.is_symlink():  # noqa: PTH113
        message = (
            f"{folder} is not a bundle (it has no {MANIFEST}); give a folder made by `edgefetal build`, or `starter`."
        )
        raise BundleError(message)
    if path.stat().st_size > _MAX_MANIFEST_BYTES:
        message = f"{path} is too large to be a manifest; build the bundle anew."
        raise BundleError(message)
    content = path.read_bytes()
    return _Unread(folder, content, read_signer(folder, content))


def manifest_sha256(folder: Path) -> str | None:
    """Return the hash of a bundle's manifest, which covers every file through the hashes in it; None without one."""
    path = folder / MANIFEST
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None


def load_bundle(folder: Path, trust: Trust | None = None, *, demand: Demand = Demand.ANY) -> Bundle:
    """Read a bundle's manifest and verify that every file is there, unaltered, and that there are no others.

    The signature is checked, and what is demanded of it, before the manifest is parsed; and every file's hash before
    that file is.

    Args:
        folder: the bundle.
        trust: whom to trust; None for whom this machine trusts.
        demand: how much must be known of its origin.

    Raises:
        BundleError: the folder is not a bundle, is newer than this program, any file is missing, extra, a link or
            altered, its signature is bad, or less is known of its origin than is demanded.
        KeyFileError: the folder of the trusted keys cannot be used as it is.
    """
    trust = machine_trust() if trust is None else trust
    unread = _unread(folder)
    require(unread, trust, demand)
    path, content = folder / MANIFEST, unread.content
    manifest = _parse_manifest(folder, content)
    lacking = sorted(set(REQUIRED) - set(manifest.files))
    if lacking:
        message = f"{path} does not list {', '.join(lacking)}; build the bundle anew."
        raise BundleError(message)
    paths = sorted(name for name in manifest.files if not _PLAIN_NAME.fullmatch(name) or name == SIGNATURE)
    if paths:
        message = (
            f"{path} lists {paths[0]!r}, which is no plain file name of a bundle's content; build the bundle anew."
        )
        raise BundleError(message)
    extra = sorted({file.name for file in folder.iterdir()} - set(manifest.files) - {MANIFEST, SIGNATURE})
    if extra:
        message = f"{folder} holds files that its manifest does not list ({', '.join(extra)}); remove them."
        raise BundleError(message)
    for name, sha256 in manifest.files.items():
        _read_verified(folder, name, sha256)
    if manifest.schema_version >= _JUDGED_THRESHOLDS:
        _require_judged_thresholds(folder, manifest)
    return Bundle(folder, manifest, hashlib.sha256(content).hexdigest(), unread.signed_by, trust.standing(unread))


def _require_judged_thresholds(folder: Path, manifest: Manifest) -> None:
    """Refuse thresholds that were altered after the bundle was judged."""
    try:
        evidence = _read_verified(folder, EVIDENCE, manifest.files[EVIDENCE])
        judged = Thresholds.model_validate(json.loads(evidence)["thresholds"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        message = f"{folder / EVIDENCE} does not say which thresholds were judged; build the bundle anew."
        raise BundleError(message) from error
    if judged != manifest.thresholds:
        message = (
            f"{folder}: its thresholds are not those that it was judged with; copy the bundle again, or fit them anew "
            "by `edgefetal calibrate`."
        )
        raise BundleError(message)


def require_fit_for_clinic(bundle: Bundle) -> None:
    """Refuse a bundle that nothing may be measured with.

    Raises:
        BundleError: it outlines nothing, or its shipped graph did not pass its accuracy budget.
    """
    if not bundle.manifest.heads.mask:
        message = (
            f"{bundle.path} only says how good a frame is; it outlines nothing, so there is nothing to measure. Give a "
            "bundle of a network that outlines, such as `starter`; `edgefetal evaluate` judges this one."
        )
        raise BundleError(message)
    if not bundle.manifest.budget_passed:
        message = (
            f"{bundle.path} did not pass its accuracy budget (see {EVIDENCE} in it); train further and build it anew."
        )
        raise BundleError(message)


def sign_bundle(bundle: Bundle, key: SigningKey, *, replace: bool = False) -> Bundle:
    """Sign a bundle that was loaded, as the very bytes that were verified then.

    A kill leaves the old signature or the new one.

    Args:
        bundle: the bundle.
        key: who signs.
        replace: whether an old signature may give way.

    Returns:
        The same bundle, signed; the key is not for that a trusted one here.

    Raises:
        BundleError: it is the package's own, is signed already, or was altered since.
        OutputError: the signature cannot be written.
    """
    if bundle.standing is Standing.PACKAGED:
        message = f"{bundle.path} belongs to the program, which stands for it; copy it elsewhere to sign the copy."
        raise BundleError(message)
    if bundle.signed_by is not None and not replace:
        message = f"{bundle.path} is signed by key {bundle.signer} already; give --replace to sign it instead."
        raise BundleError(message)
    manifest = _read_verified(bundle.path, MANIFEST, bundle.sha256)
    # A leftover in the folder would make it none, so the new signature is made ready beside it.
    folder = bundle.path.resolve()
    write_file(
        folder / SIGNATURE,
        sign_manifest(manifest, key),
        partial=folder.with_name(f".{folder.name}.{SIGNATURE}.partial"),
    )
    with as_output_error(folder):
        sync(folder)
    return load_bundle(bundle.path)
