"""A scoring run as one HTML page that needs nothing else: the table, and the picture as inline SVG."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import groupby
from typing import Final

from linepicker.simulate.report import Row, shown

__all__ = ["page"]

_STYLE: Final = """
body { font: 15px/1.45 system-ui, sans-serif; color: #111; background: #fff; margin: 2rem auto; max-width: 75rem }
table { border-collapse: collapse; margin: 1rem 0 2rem; font-variant-numeric: tabular-nums }
caption { text-align: left; font-weight: bold; padding: .3rem 0 }
th, td { padding: .25rem .7rem; border-bottom: 1px solid #ccc; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
thead th { border-bottom: 2px solid #111; vertical-align: bottom; white-space: normal }
.scroll { overflow-x: auto }
svg { max-width: 100%; height: auto }
"""


def page(title: str, rows: Sequence[Row], columns: Mapping[str, str], picture: str = "") -> str:
    """The page. *columns*: what is shown of a row ("share", or names of `MEASURES`), and what it is called; *picture*: an
    `<svg>` element."""
    tables = "\n".join(
        _table(" · ".join(filter(None, key)), list(some), columns)
        for key, some in groupby(rows, key=lambda row: (row.group, row.condition))
    )
    drawn = f"<h2>The first run, line by line</h2>\n<div class='scroll'>{picture}</div>"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{tables}
{drawn if picture else ""}
</body>
</html>
"""


def _table(caption: str, rows: Sequence[Row], columns: Mapping[str, str]) -> str:
    head = "".join(f"<th scope='col'>{escape(each)}</th>" for each in ("", *columns.values()))
    body = "\n".join(
        f"<tr><th scope='row'>{escape(row.contender)}</th>{_cells(row, columns)}</tr>"
        for row in rows
    )
    return f"""<div class="scroll"><table>
<caption>{escape(caption)}</caption>
<thead><tr>{head}</tr></thead>
<tbody>
{body}
</tbody>
</table></div>"""


def _cells(row: Row, columns: Mapping[str, str]) -> str:
    values = ((name, row.share if name == "share" else row.values[name]) for name in columns)
    return "".join(f"<td>{escape(shown(name, value))}</td>" for name, value in values)
