"""Read the tables of a card as a reader sees them, without marks of emphasis."""

from html.parser import HTMLParser

Table = list[list[str]]
"""Rows of cells, the header first."""


def read_markdown_tables(text: str) -> list[Table]:
    tables: list[Table] = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if line.startswith("| ")]
        rows = [
            [cell.strip().strip("*`") for cell in line[1:-1].split("|")]
            for line in lines
            if not line.startswith("| ---")
        ]
        if rows:
            tables.append(rows)
    return tables


class _TableReader(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tables: list[Table] = []
        self.is_inside = False

    def handle_starttag(self, tag: str, attrs: object) -> None:
        if tag == "table":
            self.tables.append([])
        elif tag == "tr":
            self.tables[-1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][-1].append("")
            self.is_inside = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self.is_inside = False

    def handle_data(self, data: str) -> None:
        if self.is_inside:
            self.tables[-1][-1][-1] += data


def read_html_tables(text: str) -> list[Table]:
    reader = _TableReader()
    reader.feed(text)
    return reader.tables
