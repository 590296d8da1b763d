"""Markdown, piece by piece."""

from __future__ import annotations

import base64
from collections.abc import Sequence


def make_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A markdown table, its first column aligned left and the others right.

    >>> print(make_table(["trips", "kept"], [["green", "7"]]))
    | trips | kept |
    | --- | ---: |
    | green | 7 |
    """
    lines = [header, ["---"] + ["---:"] * (len(header) - 1), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def make_list(title: str, sentences: Sequence[str]) -> list[str]:
    """A title and a list of sentences; nothing where there are none."""
    return [f"{title}:\n\n" + "\n".join(f"- {each}" for each in sentences)] if sentences else []


def embed_png(picture: bytes, text: str) -> str:
    """Markdown that holds a picture itself."""
    return f"![{text}](data:image/png;base64,{base64.b64encode(picture).decode()})"
