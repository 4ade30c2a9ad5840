"""HTML page: functions that make the parts of a report, which is one page in one file.

All text from data is escaped, so the functions return safe HTML. The content security policy of the
page lets a browser run the script ``page.js`` and nothing else. The script sorts and searches
tables, and shows the details of a point under the mouse. ``page.css`` is the style of all pages,
also of the page of ``climb monitor``.
"""

import base64
import hashlib
import math
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from itertools import accumulate
from pathlib import Path

STYLE = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
SCRIPT = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
ROUNDS = 8
"""Number of colours for the rounds of a search: ``r0`` to ``r7``, then ``r0`` again."""
_HEADING = re.compile(r'<section id="([^"]+)"><h2>(.*?)</h2>')


def script_hash(script: str) -> str:
    """Return the hash by which a content security policy allows ``script`` to run."""
    return f"sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}"


def page(title: str, lead: str, sections: Sequence[str]) -> bytes:
    """Return an HTML page, in UTF-8, with ``sections`` and a link to each of them.

    ``title`` is the heading of the page, and ``lead`` the sentence below it.

    Raises:
        ValueError: Two sections have the same heading.
    """
    headings = [heading for each in sections for heading in _HEADING.findall(each)]
    names = [name for name, _ in headings]
    if len(set(names)) < len(names):
        raise ValueError(f"sections with one heading: {sorted(names)}")
    links = "".join(f'<a href="#{name}">{heading}</a>' for name, heading in headings)
    policy = (
        f"default-src 'none'; script-src '{script_hash(SCRIPT)}'; style-src 'unsafe-inline'; "
        "base-uri 'none'; form-action 'none'"
    )
    return (
        '<!doctype html><html lang="en"><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        f"<title>{escape(title)}</title><style>{STYLE}</style>"
        f'<nav aria-label="Sections">{links}</nav>'
        f'<h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>{"".join(sections)}'
        f"<script>{SCRIPT}</script></html>\n"
    ).encode(errors="backslashreplace")


def section(title: str, *parts: str) -> str:
    """Return a section of a page: the HTML of ``parts`` under the heading ``title``."""
    name = re.sub(r"\W+", "-", title.lower()).strip("-")
    return f'<section id="{name}"><h2>{escape(title)}</h2>{"".join(parts)}</section>'


def paragraph(text: str) -> str:
    """Return a paragraph of plain text."""
    return f"<p>{escape(text)}</p>"


def claim(text: str, *, holds: bool) -> str:
    """Return the main statement of a page; ``holds`` decides between two styles."""
    return f'<p class="claim{"" if holds else " none"}">{escape(text)}</p>'


def warning(text: str) -> str:
    """Return a paragraph of plain text that is highlighted as a warning."""
    return f'<p class="warn">{escape(text)}</p>'


def subheading(title: str) -> str:
    """Return a heading within a section."""
    return f"<h3>{escape(title)}</h3>"


def facts(entries: Sequence[tuple[str, str]]) -> str:
    """Return a row of key figures; ``entries`` are pairs (figure, what the figure is)."""
    items = "".join(
        f'<div class="fact"><b>{escape(figure)}</b><span>{escape(what)}</span></div>'
        for figure, what in entries
    )
    return f'<div class="facts">{items}</div>'


def legend(entries: Sequence[tuple[str, str, bool]]) -> str:
    """Return a legend of a plot.

    An entry is (name, colour in page.css, whether its points are drawn as hollow circles).
    """
    items = "".join(
        f'<li><i style="--c:var(--{color})"{" class=hollow" if hollow else ""}></i>'
        f"{escape(name)}</li>"
        for name, color, hollow in entries
    )
    return f'<ul class="legend">{items}</ul>'


def heat_cell(share: float, text: str) -> tuple[str, str]:
    """Return a cell for `table`; a larger ``share``, from 0 to 1, makes a darker background."""
    return f'class="n heat" style="--h:{0.75 * min(max(share, 0.0), 1.0):.2f}"', text


def table(
    heads: Sequence[str],
    rows: Sequence[Sequence[str | tuple[str, str]]],
    numbers: Sequence[int] = (),
    texts: Sequence[int] = (),
    clusters: Sequence[str] = (),
) -> str:
    """Return a table; readers of the page can sort it, and search it if it is long.

    Args:
        heads: Headings of the columns, plain text.
        rows: Cells of each row. A cell is HTML, or a pair of HTML attributes and HTML.
        numbers: Columns that are aligned to the right, by position from 0.
        texts: Columns that are wide enough for sentences, by position from 0. If a word is wider
            than the column, it is broken.
        clusters: Cluster of each row, which links the row to a map of clusters on the page; empty:
            there is no map.
    """

    def kind(i: int) -> str:
        return "class=n" if i in numbers else "class=t" if i in texts else ""

    def cell(tag: str, value: str | tuple[str, str], i: int) -> str:
        attributes, html = (kind(i), value) if isinstance(value, str) else value
        return f"<{tag}{' ' if attributes else ''}{attributes}>{html}</{tag}>"

    head = "".join(cell("th", escape(h), i) for i, h in enumerate(heads))
    body = []
    for number, row in enumerate(rows):
        mark = f' data-cluster="{escape(clusters[number])}"' if clusters else ""
        body.append(f"<tr{mark}>{''.join(cell('td', c, i) for i, c in enumerate(row))}</tr>")
    return (
        f'<div class="wide"><table class="data"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(body)}</tbody></table></div>"
    )


def direction(text: str) -> str:
    """Return the HTML attribute for the writing direction of ``text``; "" for left to right.

    The share of right-to-left letters decides, not the first letter as in browsers, because Arabic
    text may begin with a Latin name.

    >>> direction("React: مكتبة لبناء الواجهات"), direction("the word مكتبة means library")
    (' dir="rtl"', '')
    """
    right, left = _directions(text)
    return ' dir="rtl"' if right > _FROM_RIGHT * (right + left) else ""


_FROM_RIGHT = 1 / 3
"""Share of right-to-left letters above which a text counts as written from right to left."""


def _directions(text: str) -> tuple[int, int]:
    """Return the number of letters of right-to-left scripts, and that of left-to-right scripts."""
    counts = Counter(map(unicodedata.bidirectional, text))
    return counts["R"] + counts["AL"], counts["L"]


def isolated(text: str) -> str:
    """Return ``text`` as HTML, so that its writing direction does not change the text around it."""
    right, _ = _directions(text)
    return f"<bdi>{escape(text)}</bdi>" if right else escape(text)


def listed(words: Sequence[str]) -> str:
    """Return ``words`` as HTML, joined with commas; the first is on the left in any script."""
    return ", ".join(map(isolated, words))


def quotation(name: str, text: str, html: str = "") -> str:
    """Return a quotation from document ``name``: ``html`` or, by default, the plain ``text``."""
    return (
        f"<blockquote{direction(text)}><b>{isolated(name)}</b><br>"
        f"{html or escape(text)}</blockquote>"
    )


def bar(share: float, color: str = "blue") -> str:
    """Return the drawing of a bar whose length is proportional to ``share``, from 0 to 1."""
    width = f"calc({share:.3f} * var(--bar))"
    return f'<span class="bar" style="width:{width};background:var(--{color})"></span>'


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Points of one kind, in one colour, for `scatter_plot`."""

    name: str
    """Name in the legend."""
    color: str
    """Name of a colour in page.css, such as ``blue`` or ``r3``."""
    points: Sequence[tuple[float, float]]
    """Values (x, y) of each point."""
    sds: Sequence[float] = ()
    """Standard deviation of each y value, drawn as an error bar; empty: there are no error bars."""
    tips: Sequence[str] = ()
    """For each point, a text that is shown after its y value when the mouse is over the point."""
    hollow: bool = False
    """Whether points are drawn as hollow circles."""

    def bars(self) -> Iterator[tuple[float, float]]:
        """Yield (y value, standard deviation) of each point that has an error bar."""
        for (_, y), sd in zip(self.points, self.sds, strict=False):
            if math.isfinite(sd) and sd > 0:
                yield y, sd


def scatter_plot(
    series: Sequence[Series],
    x_title: str,
    y_title: str,
    lines: Sequence[tuple[str, float]] = (),
    *,
    diagonal: bool = False,
) -> str:
    """Return a plot of several series on common axes, with a legend; "" if there are no points.

    ``lines`` are horizontal lines, as (name, y value). ``diagonal`` adds the line on which x and y
    are equal.
    """
    points = [point for some in series for point in some.points]
    if not points:
        return ""
    ends = [y + side * sd for some in series for y, sd in some.bars() for side in (-1, 1)]
    axes = _Axes(points, [*ends, *(y for _, y in lines)])
    marks = axes.marks(x_title)
    if diagonal:
        low, high = max(axes.x0, axes.y0), min(axes.x1, axes.y1)
        if low < high:
            marks.append(axes.line((low, low), (high, high), "stroke-dasharray='2 4'"))
    for name, value in lines:
        marks.append(axes.line((axes.x0, value), (axes.x1, value), "stroke-dasharray='5 4'"))
        marks.append(
            f'<text x="{_WIDTH - _RIGHT + 6}" y="{axes.at(axes.x0, value)[1] + 4:.1f}">'
            f"{escape(name)}</text>"
        )
    marks += [_circles(axes, some) for some in series]
    return (
        f'<div><div class="plot"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="{escape(y_title)}">{"".join(marks)}'
        f'<text x="4" y="13">{escape(y_title)}</text></svg></div>'
        + legend([(some.name, some.color, some.hollow) for some in series])
        + "</div>"
    )


_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _LOW = 760, 320, 64, 120, 26, 40


class _Axes:
    """The axes of a plot, which turn values into positions in the drawing, in pixels."""

    def __init__(self, points: Sequence[tuple[float, float]], heights: Sequence[float]) -> None:
        xs, ys = [x for x, _ in points], [*(y for _, y in points), *heights]
        self.x0, self.x1 = min(xs), max(max(xs), min(xs) + 1e-9)
        pad = (max(ys) - min(ys) or 1e-9) * 0.08
        self.y0, self.y1 = min(ys) - pad, max(ys) + pad

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Return the position of the point (``x``, ``y``) in the drawing, in pixels."""
        across = (x - self.x0) / (self.x1 - self.x0) * (_WIDTH - _LEFT - _RIGHT - 24)
        up = (y - self.y0) / (self.y1 - self.y0) * (_HEIGHT - _LOW - _TOP)
        return _LEFT + 12 + across, _HEIGHT - _LOW - up

    def line(self, begin: tuple[float, float], end: tuple[float, float], style: str) -> str:
        """Return the drawing of a line between two points, given by their values."""
        (x1, y1), (x2, y2) = self.at(*begin), self.at(*end)
        return (
            f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" '
            f'stroke="var(--soft)" {style}/>'
        )

    def marks(self, x_title: str) -> list[str]:
        """Return the drawing of the scales of both axes, as several parts."""
        marks = []
        for value in _ticks(self.y0, self.y1):
            _, y = self.at(self.x0, value)
            marks.append(
                f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{y:.1f}" y2="{y:.1f}" '
                f'stroke="var(--line)"/>'
                f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{value:.6g}</text>'
            )
        for value in _ticks(self.x0, self.x1):
            x, _ = self.at(value, self.y0)
            marks.append(
                f'<text x="{x:.1f}" y="{_HEIGHT - _LOW + 18}" text-anchor="middle">'
                f"{value:.6g}</text>"
            )
        middle = (_LEFT + _WIDTH - _RIGHT) / 2
        marks.append(
            f'<text x="{middle}" y="{_HEIGHT - 4}" text-anchor="middle">{escape(x_title)}</text>'
        )
        return marks


def _ticks(low: float, high: float) -> list[float]:
    """Return a few evenly spaced round numbers from ``low`` to ``high``.

    >>> _ticks(0.93, 2.2)
    [1.0, 1.5, 2.0]
    """
    rough = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 5, 10) if size * factor >= rough)
    first = math.ceil(low / step)
    return [round(step * i, 12) for i in range(first, math.floor(high / step) + 1)]


def _circles(axes: _Axes, series: Series) -> str:
    """Return the drawing of the points of one series, with error bars."""
    color, marks = f"var(--{series.color})", []
    for number, (x, y) in enumerate(series.points):
        cx, cy = axes.at(x, y)
        if number < len(series.sds) and math.isfinite(sd := series.sds[number]) and sd > 0:
            (_, top), (_, low) = axes.at(x, y + sd), axes.at(x, y - sd)
            marks.append(f'<path d="M{cx:.1f} {top:.1f}V{low:.1f}" stroke="{color}"/>')
        more = f"\n{series.tips[number]}" if number < len(series.tips) else ""
        look = f'fill="none" stroke="{color}" stroke-width="2"'
        if not series.hollow:
            look = f'fill="{color}" fill-opacity=".8"'
        tip = escape(f"{series.name}: {y:.5g}{more}")
        marks.append(f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="4" {look} data-tip="{tip}"/>')
    return f"<g>{''.join(marks)}</g>"


def small_curve(
    title: str, points: Sequence[tuple[float, float]], span: tuple[float, float], tip: str
) -> str:
    """Return the drawing of a small curve through ``points``, pairs (share from 0 to 1, value).

    ``span`` is the range of values that the height of the drawing stands for, so curves with the
    same ``span`` can be compared. ``tip`` is the text that is shown when the mouse is over the
    drawing.
    """
    (x0, _), (x1, _) = points[0], points[-1]
    low, high = span
    places = " ".join(
        f"{140 * (x - x0) / (x1 - x0 or 1):.1f},{52 - 48 * (y - low) / (high - low or 1):.1f}"
        for x, y in points
    )
    return (
        f'<figure data-tip="{escape(tip)}" tabindex="0"><figcaption>{escape(title)}</figcaption>'
        f'<svg viewBox="0 0 140 56" width="140" role="img" aria-label="{escape(tip)}">'
        f'<polyline points="{places}" fill="none" stroke="var(--blue)" stroke-width="2"/></svg>'
        f"<figcaption><span>{x0:.0%}</span><span>{x1:.0%}</span></figcaption></figure>"
    )


def _fitting(name: str, most: int = 26) -> str:
    """Return ``name``, cut to a width of ``most`` letters; a Chinese character counts as two.

    >>> _fitting("c03 written, incrementaldecoder"), _fitting("c03 sea")
    ('c03 written, incrementald…', 'c03 sea')
    """
    ends = accumulate(1 + (unicodedata.east_asian_width(letter) in "FW") for letter in name)
    fits = sum(end < most for end in ends)
    return name if fits >= len(name) - 1 else f"{name[:fits]}…"


def heat_map(
    names: Sequence[str],
    columns: Sequence[Sequence[float]],
    groups: Sequence[tuple[str, int]],
    label: str,
) -> str:
    """Return the drawing of a heat map, in which a larger value is a darker cell.

    Args:
        names: Names of the rows.
        columns: Values of each column, one per row, from 0 to 1.
        groups: Titles above consecutive columns, as (title, number of columns).
        label: Description of the picture for readers who cannot see it.
    """
    rows, count = len(names), len(columns)
    size, left, top = max(3.0, min(28.0, 860 / max(count, 1))), 200, 24
    high = 18
    paths: dict[int, list[str]] = {}
    for i, column in enumerate(columns):
        for k, value in enumerate(column):
            if level := round(10 * min(max(value, 0.0), 1.0)):
                paths.setdefault(level, []).append(
                    f"M{left + i * size:.1f} {top + k * high}h{size:.1f}v{high}h-{size:.1f}z"
                )
    marks = [
        f'<path d="{"".join(some)}" fill="rgb(var(--heat) / {level / 10:.1f})"/>'
        for level, some in sorted(paths.items())
    ]
    marks += [
        f'<text x="{left - 6}" y="{top + k * high + 13}" text-anchor="end">'
        f"{escape(_fitting(name))}</text>"
        for k, name in enumerate(names)
    ]
    begin = 0
    for title, wide in groups:
        x = left + begin * size
        if 8 * len(title) > wide * size and (short := re.search(r"\d+$", title)):
            title = short[0]
        marks.append(
            f'<path d="M{x:.1f} {top - 4}v{rows * high + 4}" stroke="var(--line)"/>'
            f'<text x="{x + 3:.1f}" y="{top - 8}">{escape(title)}</text>'
        )
        begin += wide
    width, height = left + count * size + 90, top + rows * high + 4
    return (
        f'<div class="plot fixed"><svg viewBox="0 0 {width:.0f} {height}" width="{width:.0f}" '
        f'role="img" aria-label="{escape(label)}">{"".join(marks)}</svg></div>'
    )
