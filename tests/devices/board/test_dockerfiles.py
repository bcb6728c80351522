"""The Dockerfiles, which could not be built here: what a reader of them can check."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
BOARD = ROOT / "devices" / "board"
DOCUMENT = (ROOT / "docs" / "boards.md").read_text(encoding="utf-8")
FILES = sorted(BOARD.glob("Dockerfile.*"))
INSTRUCTIONS = {"FROM", "SHELL", "ADD", "RUN", "ENV", "USER", "WORKDIR", "VOLUME", "ENTRYPOINT", "CMD"}


def instructions(file: Path) -> list[tuple[str, str]]:
    """Read a Dockerfile as Docker does: comments go, and a line that ends in a backslash goes on."""
    kept = [line for line in file.read_text().splitlines() if line.strip() and not line.lstrip().startswith("#")]
    whole = re.sub(r"\\\n\s*", " ", "\n".join(kept))
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in whole.splitlines()]


@pytest.fixture(params=FILES, ids=lambda file: file.name)
def dockerfile(request: pytest.FixtureRequest) -> Path:
    file: Path = request.param
    return file


def test_there_is_one_for_each_jetpack() -> None:
    assert [file.name for file in FILES] == ["Dockerfile.jetpack-6.2", "Dockerfile.jetpack-7.2"]


def test_it_parses(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    assert steps[0][0] == "FROM"
    assert {name for name, _ in steps} <= INSTRUCTIONS
    assert all(value.strip() for _, value in steps)


def test_the_image_is_nvidias_with_a_fixed_tag_that_the_document_names(dockerfile: Path) -> None:
    images = [value for name, value in instructions(dockerfile) if name == "FROM"]
    assert len(images) == 1
    assert re.fullmatch(r"nvcr\.io/nvidia/[a-z0-9-]+:[a-z0-9.-]*\d[a-z0-9.-]*", images[0])
    assert "latest" not in images[0]
    assert f"`{images[0]}`" in DOCUMENT


def test_it_runs_as_nobody_in_particular_and_keeps_its_state(dockerfile: Path) -> None:
    steps = instructions(dockerfile)
    by_name = dict(steps)
    assert by_name["USER"] == "edgefetal"
    assert by_name["ENTRYPOINT"] == '["edgefetal"]'
    assert by_name["VOLUME"] == '["/var/lib/edgefetal"]'
    names = [name for name, _ in steps]
    assert names.index("USER") > max(n for n, name in enumerate(names) if name == "RUN")


def test_it_holds_no_secret_and_fetches_over_https_only(dockerfile: Path) -> None:
    text = dockerfile.read_text()
    assert not re.search(r"(?i)password|token|secret|api[_-]?key|BEGIN [A-Z ]*PRIVATE", text)
    assert "http://" not in text
    assert not re.search(r"curl|wget|trusted-host|--allow-unauthenticated|\bsudo\b", text)


def test_edgefetal_comes_from_the_folder_of_wheels_alone(dockerfile: Path) -> None:
    pip = [value for name, value in instructions(dockerfile) if name == "RUN" and " install --no-cache-dir" in value]
    assert len(pip) == 1
    assert "--no-index --find-links /wheels" in pip[0]
    assert "--system-site-packages" in pip[0]
    assert ("numpy<2" in pip[0]) == (dockerfile.name == "Dockerfile.jetpack-6.2")


def test_package_lists_are_not_left_behind(dockerfile: Path) -> None:
    for name, value in instructions(dockerfile):
        if name == "RUN" and "apt-get install" in value:
            assert "--no-install-recommends" in value
            assert "rm -rf /var/lib/apt/lists/*" in value


def test_it_says_that_it_was_never_built(dockerfile: Path) -> None:
    assert "NEVER BUILT" in dockerfile.read_text()
    assert "never built" in DOCUMENT
