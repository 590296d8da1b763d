"""The package's version and the identity of its code, part of every model's identity."""

from __future__ import annotations

import ast
import hashlib
import platform
from functools import cache
from importlib.metadata import version
from pathlib import Path
from threading import Lock

__version__ = "0.1.0"

PACKAGE = Path(__file__).parent
CHECKOUT = PACKAGE.parent

COMPUTING = ("numpy", "scipy", "pandas", "pyarrow")
"""The libraries that figures are computed with."""

COMPUTING_NOTHING = ("errors", "files", "settings", "version")
"""Modules whose code changes no figure: they refuse, word, store and name what others compute."""


@cache
def identify_code(module: str, package: Path = PACKAGE) -> str:
    """Return a digest of the code that a module of this package computes with.

    It covers the module, every module of the package that it imports, directly or not, but those
    of `COMPUTING_NOTHING`, Python and `COMPUTING`. Comments and docstrings do not count, nor does
    any other module.

    Args:
        module: a dotted name, such as "taxi_duration.model.month_sums".
        package: the directory of the package.
    """
    digest = hashlib.sha256(platform.python_version().encode())
    digest.update(" ".join(f"{name}=={version(name)}" for name in COMPUTING).encode())
    for path in list_sources(module, package):
        digest.update(path.relative_to(package).as_posix().encode())
        digest.update(ast.dump(_parse(path)).encode())
    return digest.hexdigest()


def list_sources(module: str, package: Path = PACKAGE) -> list[Path]:
    """Return the source files of a module and of all that it computes with, sorted."""
    found: set[Path] = set()
    waiting = [module]
    while waiting:
        path = _find_source(waiting.pop(), package)
        if path is None or path in found:
            continue
        found.add(path)
        for node in ast.walk(_parse(path)):
            if isinstance(node, ast.Import):
                waiting += [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.module:
                # What is imported from a package may be a module of it.
                waiting += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return sorted(found)


def _find_source(module: str, package: Path) -> Path | None:
    top, *parts = module.split(".")
    if top != package.name or (parts and parts[0] in COMPUTING_NOTHING):
        return None
    place = package.joinpath(*parts)
    # The package's own face imports nearly everything, and computes nothing.
    candidates = (place / "__init__.py", place.with_suffix(".py")) if parts else ()
    return next((path for path in candidates if path.is_file()), None)


# Python 3.11's parser fails in threads that parse at once, with a SystemError.
_PARSING = Lock()


def _parse(path: Path) -> ast.Module:
    with _PARSING:
        tree = ast.parse(path.read_bytes())
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            node.body = [each for each in node.body if not _is_text(each)] or [ast.Pass()]
    return tree


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
