"""What is installed here, held against what the project requires."""

from __future__ import annotations

import platform
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from taxi_duration.version import CHECKOUT

PROJECT = "nyc-taxi-duration"


@dataclass(frozen=True)
class Requirements:
    """The Pythons and distributions that the project runs with.

    Args:
        source: where they are written down.
        optional: of extras, which need not be installed but must fit if they are.
    """

    source: str
    python: SpecifierSet
    required: tuple[Requirement, ...]
    optional: tuple[Requirement, ...]


@dataclass(frozen=True)
class Misfit:
    """A distribution that is not as required; `installed` is None if it is not there at all."""

    requirement: Requirement
    installed: str | None

    def __str__(self) -> str:
        name, wanted = self.requirement.name, self.requirement.specifier
        if self.installed is None:
            return f"{name} is not installed"
        return f"{name} {self.installed} is installed, where {wanted} is required"


def read_requirements(checkout: Path = CHECKOUT) -> Requirements | None:
    """Read them from the project's pyproject.toml, or from its metadata where it is installed.

    Returns:
        None if this is neither in a checkout of the project nor an installed distribution.
    """
    return _read_pyproject(checkout / "pyproject.toml") or _read_metadata()


def _read_pyproject(path: Path) -> Requirements | None:
    if not path.is_file():
        return None
    project = tomllib.loads(path.read_text("utf-8")).get("project", {})
    if project.get("name") != PROJECT:
        return None
    extras = project.get("optional-dependencies", {}).values()
    return Requirements(
        str(path),
        SpecifierSet(project["requires-python"]),
        tuple(map(Requirement, project["dependencies"])),
        tuple(Requirement(text) for extra in extras for text in extra),
    )


def _read_metadata() -> Requirements | None:
    try:
        found = metadata.metadata(PROJECT).json
    except metadata.PackageNotFoundError:
        return None
    declared = [Requirement(text) for text in metadata.requires(PROJECT) or []]
    of_extras = ["extra" in str(requirement.marker or "") for requirement in declared]
    return Requirements(
        f"the metadata of {PROJECT}",
        SpecifierSet(str(found.get("requires_python", ""))),
        tuple(each for each, is_extra in zip(declared, of_extras, strict=True) if not is_extra),
        tuple(each for each, is_extra in zip(declared, of_extras, strict=True) if is_extra),
    )


def fits_python(requirements: Requirements) -> bool:
    """Whether the Python that runs this is one of those the project supports."""
    return requirements.python.contains(platform.python_version(), prereleases=True)


def find_misfits(requirements: Requirements) -> Iterator[Misfit]:
    """The distributions that are absent or of a version that is not allowed."""
    for requirement in requirements.required:
        if requirement.marker is None or requirement.marker.evaluate():
            installed = _find_version(requirement.name)
            if installed is None or not _allows(requirement, installed):
                yield Misfit(requirement, installed)
    for requirement in requirements.optional:
        installed = _find_version(requirement.name)
        if installed is not None and not _allows(requirement, installed):
            yield Misfit(requirement, installed)


def _find_version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _allows(requirement: Requirement, version: str) -> bool:
    return requirement.specifier.contains(version, prereleases=True)
