"""HTML page: the parts of a report that is one file without scripts and without network.

Text from data goes through `escape`, so the functions return safe HTML.
"""

from collections.abc import Sequence
from html import escape

_STYLE = """
:root { --ink: #1b1f24; --soft: #606a76; --line: #d9dee4; --back: #fff; --card: #f6f7f9;
  --blue: #2563a8; --orange: #c8641c; --green: #2e7d4f; }
@media (prefers-color-scheme: dark) { :root { --ink: #e7eaee; --soft: #9aa5b1; --line: #343b44;
  --back: #14171b; --card: #1d2126; --blue: #6ea8e6; --orange: #f0975a; --green: #6cc492; } }
* { box-sizing: border-box; }
body { margin: 2rem auto; max-width: 78rem; padding: 0 1.2rem; background: var(--back);
  color: var(--ink); font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; } h2 { font-size: 1.2rem; margin: 2.4rem 0 .6rem; }
p.lead { color: var(--soft); margin: 0 0 1rem; max-width: 50rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: left; padding: .35rem .7rem .35rem 0; vertical-align: top;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 500; font-size: .85rem; white-space: nowrap; }
td.n, th.n { text-align: right; white-space: nowrap; }
.bar { display: inline-block; height: .7em; border-radius: 2px; background: var(--blue);
  min-width: 1px; vertical-align: baseline; }
td:has(.bar) { white-space: nowrap; }
details { margin: .2rem 0; } summary { cursor: pointer; color: var(--soft); font-size: .85rem; }
blockquote { margin: .4rem 0; padding: .4rem .7rem; background: var(--card); border-radius: 4px;
  font: 12.5px/1.45 ui-monospace, monospace; overflow-wrap: anywhere; }
svg { max-width: 100%; height: auto; } svg text { fill: var(--soft); font: 12px system-ui; }
.claim { background: var(--card); border-left: 4px solid var(--green); padding: .7rem 1rem;
  border-radius: 4px; } .claim.none { border-color: var(--orange); }
code { font: .92em ui-monospace, monospace; }
"""


def page(title: str, lead: str, sections: Sequence[str]) -> bytes:
    """Join ``sections`` of HTML to a page."""
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style>"
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{"".join(sections)}</html>\n'
    ).encode(errors="backslashreplace")


def section(title: str, *parts: str) -> str:
    """Put ``parts`` of HTML under a heading."""
    return f"<section><h2>{escape(title)}</h2>{''.join(parts)}</section>"


def paragraph(text: str) -> str:
    """Make a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def claim(text: str, *, holds: bool) -> str:
    """Make a paragraph that stands out: the main result of the page."""
    return f'<p class="claim{"" if holds else " none"}">{escape(text)}</p>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], numbers: Sequence[int] = ()) -> str:
    """Make a table of cells that are HTML; the columns ``numbers`` are aligned to the right."""

    def cells(tag: str, values: Sequence[str]) -> str:
        return "".join(
            f"<{tag}{' class=n' if i in numbers else ''}>{value}</{tag}>"
            for i, value in enumerate(values)
        )

    body = "".join(f"<tr>{cells('td', row)}</tr>" for row in rows)
    head = cells("th", [escape(h) for h in heads])
    return f'<div class="wide"><table><tr>{head}</tr>{body}</table></div>'


def bar(share: float, color: str = "blue") -> str:
    """Draw ``share``, 0 to 1, as a bar."""
    return f'<span class="bar" style="width:{120 * share:.1f}px;background:var(--{color})"></span>'


def scatter_plot(
    series: Sequence[tuple[str, str, Sequence[tuple[float, float]]]],
    x_title: str,
    y_title: str,
    lines: Sequence[tuple[str, float]] = (),
) -> str:
    """Draw points: ``series`` are (name, colour, points), ``lines`` are heights by name."""
    width, height, left, low = 720, 300, 64, 42
    points = [point for _, _, some in series for point in some]
    if not points:
        return ""
    xs = [x for x, _ in points]
    ys = [y for _, y in points] + [y for _, y in lines]
    x0, x1 = min(xs), max(max(xs), min(xs) + 1e-9)
    pad = (max(ys) - min(ys) or 1e-9) * 0.08
    y0, y1 = min(ys) - pad, max(ys) + pad

    def at(x: float, y: float) -> tuple[float, float]:
        across = left + 12 + (x - x0) / (x1 - x0) * (width - left - 150)
        return across, height - low - (y - y0) / (y1 - y0) * (height - low - 14)

    marks = []
    for i in range(5):
        value = y0 + (y1 - y0) * i / 4
        _, y = at(x0, value)
        marks.append(
            f'<line x1="{left}" x2="{width - 130}" y1="{y:.1f}" y2="{y:.1f}" stroke="var(--line)"/>'
            f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.4g}</text>'
        )
    for value in (x0, x1):
        x, _ = at(value, y0)
        marks.append(f'<text x="{x:.1f}" y="{height - 26}" text-anchor="middle">{value:.4g}</text>')
    for name, value in lines:
        _, y = at(x0, value)
        marks.append(
            f'<line x1="{left}" x2="{width - 130}" y1="{y:.1f}" y2="{y:.1f}" '
            f'stroke="var(--soft)" stroke-dasharray="5 4"/>'
            f'<text x="{width - 124}" y="{y + 4:.1f}">{escape(name)}</text>'
        )
    for i, (name, color, some) in enumerate(series):
        for x, y in some:
            cx, cy = at(x, y)
            marks.append(
                f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" fill="var(--{color})" '
                f'fill-opacity=".8"><title>{escape(name)}: {y:.5g}</title></circle>'
            )
        marks.append(
            f'<circle cx="{left + 12 + 130 * i}" cy="{height - 8}" r="4" fill="var(--{color})"/>'
            f'<text x="{left + 20 + 130 * i}" y="{height - 4}">{escape(name)}</text>'
        )
    return (
        f'<svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{escape(y_title)}">{"".join(marks)}'
        f'<text x="{left}" y="10">{escape(y_title)}</text>'
        f'<text x="{width - 100}" y="{height - 26}">{escape(x_title)}</text>'
        "</svg>"
    )
