"""The page a run card is on: HTML that holds all it needs, without scripts."""

from __future__ import annotations

import re
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from markdown_it.token import Token

STYLE = """\
:root {
  color-scheme: light dark;
  --paper: #ffffff; --panel: #f5f7fa; --line: #d8dee7; --ink: #1c2430; --soft: #55606f;
  --faint: #8a93a1; --first: #1f66c1; --second: #b45309; --good: #15703a; --bad: #b3261e;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #14181f; --panel: #1c222b; --line: #343d4a; --ink: #e6eaf0; --soft: #a8b2c0;
    --faint: #76808f; --first: #74a9f5; --second: #f0a35e; --good: #6cc48d; --bad: #f28b82;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif;
}
main { max-width: 72rem; margin: 0 auto; padding: 2.5rem 1.5rem 4rem; }
h1 { margin: 0 0 .75rem; font-size: 1.75rem; line-height: 1.2; letter-spacing: -.015em; }
h2 {
  margin: 2.25rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line);
  font-size: 1.2rem; line-height: 1.3; letter-spacing: -.005em;
}
p, li { max-width: 46rem; }
h1 + p { font-size: 1.1rem; }
a { color: var(--first); }
nav { margin: 1.5rem 0; font-size: .9rem; }
nav a { margin-right: 1rem; white-space: nowrap; }
blockquote {
  max-width: 47.25rem; margin: 1.25rem 0; padding: .75rem 1.1rem; background: var(--panel);
  border-left: 4px solid var(--faint); border-radius: 0 .4rem .4rem 0;
}
blockquote p { margin: 0; }
blockquote ul { margin: .4rem 0; padding-left: 1.2rem; }
.promoted blockquote { border-color: var(--good); }
.promoted blockquote strong { color: var(--good); }
.not-promoted blockquote { border-color: var(--bad); }
.not-promoted blockquote strong, td strong { color: var(--bad); }
.scroll {
  display: inline-block; vertical-align: top; max-width: 100%; overflow-x: auto;
  margin: 1rem 2.5rem 1rem 0;
}
.scroll:focus-visible { outline: 2px solid var(--first); outline-offset: 2px; }
table {
  border-collapse: collapse; font-size: .9rem; line-height: 1.4;
  font-variant-numeric: tabular-nums lining-nums;
}
th, td { padding: .35rem 0 .35rem 1.5rem; text-align: left; vertical-align: baseline; }
th:first-child { padding-left: 0; }
thead th { color: var(--soft); font-weight: 600; border-bottom: 1px solid var(--faint); }
tbody th { min-width: 8.5rem; font-weight: 400; }
tbody tr + tr > * { border-top: 1px solid var(--line); }
td { white-space: nowrap; }
code, pre { font: .85em/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre {
  overflow-x: auto; padding: .9rem 1.1rem; background: var(--panel); border-radius: .4rem;
}
pre code { font-size: 1em; }
figure {
  display: inline-block; vertical-align: top; width: 29rem; max-width: 100%;
  margin: 1rem 2.5rem 1rem 0;
}
figure svg { display: block; width: 100%; height: auto; stroke-linejoin: round; }
figure svg text { font-family: inherit !important; }
figcaption { margin-top: .4rem; color: var(--soft); font-size: .875rem; line-height: 1.45; }
figcaption b { color: var(--ink); }
@media (max-width: 40rem) {
  main { padding: 1.5rem 1rem 3rem; }
  h1 { font-size: 1.4rem; }
  .scroll, figure { display: block; width: auto; margin-right: 0; }
  table { min-width: 100%; font-size: .85rem; }
  th, td { padding-left: 1rem; }
  th:first-child { position: sticky; left: 0; background: var(--paper); }
}
@media print {
  :root {
    color-scheme: light;
    --paper: #ffffff; --panel: #ffffff; --line: #cccccc; --ink: #000000; --soft: #333333;
    --faint: #777777; --first: #1f66c1; --second: #b45309; --good: #15703a; --bad: #b3261e;
  }
  main { max-width: none; padding: 0; }
  nav { display: none; }
  .scroll, pre { overflow: visible; }
  pre { white-space: pre-wrap; border: 1px solid var(--line); }
  figure, tr, blockquote { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Whatever a report says, a browser fetches and runs nothing."""


def fill_page(title: str, content: str, verdict: str) -> str:
    """A whole page around its content.

    Args:
        verdict: a class of the page, which gives the verdict its colour.
    """
    places = re.findall(r'<h2 id="([\w-]+)">(.*?)</h2>', content)
    links = "".join(f'<a href="#{name}">{text}</a>\n' for name, text in places)
    content = content.replace("<h2", f'<nav aria-label="Contents">\n{links}</nav>\n<h2', 1)
    return f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<link rel="icon" href="data:,">
<title>{escape(title)}</title>
<style>
{STYLE}</style>
</head>
<body>
<main class="{verdict}">
{content}</main>
</body>
</html>
"""


def make_figure(svg: str, title: str, caption: str) -> str:
    """A plot and, for those who do not see it too, what is on it."""
    return (
        f'<figure role="group">\n{svg}\n'
        f"<figcaption><b>{escape(title)}.</b> {escape(caption)}</figcaption>\n</figure>\n"
    )


def render_text(text: str) -> str:
    """Markdown as HTML: what is HTML in it stays text, and tables are made for narrow screens."""
    from markdown_it import MarkdownIt

    reader = MarkdownIt("js-default")
    tokens = reader.parse(text)
    _name_headings(tokens)
    rendered: str = reader.renderer.render(_help_tables(tokens), reader.options, {})
    return rendered


def _name_headings(tokens: list[Token]) -> None:
    for opening, inside in pairwise(tokens):
        if opening.tag == "h2" and inside.type == "inline":
            opening.attrSet("id", re.sub(r"\W+", "-", inside.content.lower()))


def _help_tables(tokens: list[Token]) -> list[Token]:
    """Have each table scroll by itself, be named, and say which cells name its rows."""
    from markdown_it.token import Token

    def frame(html: str) -> Token:
        return Token("html_block", "", 0, content=f"{html}\n")

    helped: list[Token] = []
    is_first = False
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            # Its first cell says what the rows are about.
            name = next(each.content for each in tokens[place:] if each.type == "inline")
            region = f'role="region" aria-label="{escape(name)}" tabindex="0"'
            helped.append(frame(f'<div class="scroll" {region}>'))
        elif token.type == "tr_open":
            is_first = True
        elif token.type == "th_open":
            token.attrSet("scope", "col")
        elif token.type == "td_open" and is_first:
            token.tag = "th"
            token.attrSet("scope", "row")
        elif token.type == "td_close" and is_first:
            token.tag, is_first = "th", False
        helped.append(token)
        if token.type == "table_close":
            helped.append(frame("</div>"))
    return helped
