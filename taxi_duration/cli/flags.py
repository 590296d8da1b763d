"""Flags of a command line, from the fields of its options."""

from __future__ import annotations

import argparse
from collections.abc import Mapping

from pydantic import BaseModel


def make_parser(kind: type[BaseModel], description: str) -> argparse.ArgumentParser:
    """Return a parser of the flags of some options."""
    parser = argparse.ArgumentParser(description=description.split("\n\n")[0], allow_abbrev=False)
    add_flags(parser, kind)
    return parser


def add_flags(
    parser: argparse.ArgumentParser, kind: type[BaseModel], flags: Mapping[str, str] | None = None
) -> None:
    """Add a flag for each field of some options, with its description and default.

    Values stay text: `read_options` reads them, as strictly as those of a deployment.

    Args:
        flags: names of those that are not named after their field.
    """
    for name, field in kind.model_fields.items():
        shown = (flags or {}).get(name, name).replace("_", "-")
        flag, text = f"--{shown}", field.description or ""
        if field.annotation is bool:
            parser.add_argument(
                flag, dest=name, action="store_true", default=argparse.SUPPRESS, help=text
            )
            continue
        is_silent = field.is_required() or field.default is None
        parser.add_argument(
            flag,
            dest=name,
            metavar=shown.replace("-", "_").upper(),
            required=field.is_required(),
            default=argparse.SUPPRESS,
            help=text if is_silent else f"{text} (default: {field.default})",
        )
