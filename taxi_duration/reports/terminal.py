"""Tables in a terminal, and programs as one types them there."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

WIDTH = 200
"""Columns that a table may take; it takes what it needs."""


def draw_table(
    header: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[str] = ()
) -> str:
    """Return a table as text, the columns of `numbers` aligned right.

    >>> print(draw_table(["month", "trips"], [["2023-01", "7"]], ["trips"]))
    <BLANKLINE>
      month     trips
     ─────────────────
      2023-01       7
    <BLANKLINE>
    """
    table = Table(box=box.SIMPLE_HEAD)
    for name in header:
        table.add_column(name, justify="right" if name in numbers else "left")
    for row in rows:
        table.add_row(*row)
    printed = io.StringIO()
    Console(width=WIDTH, file=printed, color_system=None, markup=False, highlight=False).print(
        table
    )
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines())


def find_program(name: str) -> str:
    """Return how to call a program of this environment from here, activated or not."""
    program = Path(sys.executable).with_name(name)
    if shutil.which(name) == str(program):
        return name
    here = Path.cwd()
    shown = program.relative_to(here) if program.is_relative_to(here) else program
    return shlex.quote(str(shown))
