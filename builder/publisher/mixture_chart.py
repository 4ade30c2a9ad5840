"""Mixture chart: a picture of the clusters' weights and token shares, for the card of a data set.

The picture is a separate SVG file, because programs that show Markdown usually remove SVG inside of
it. The styles and the colour scheme of a page do not apply to an image file, so the picture has its
own colours and background.
"""

from collections.abc import Mapping, Sequence
from html import escape

from climbstream.loader.formats.mixture import Mixture

CHART = "mixture.svg"
"""Name of the file in the data set."""
MOST_ROWS = 24
"""Maximum number of clusters in the picture: those with the largest weights or token shares."""
_WIDTH, _LEFT, _BAR, _ROW, _HEAD, _EDGE = 800, 250, 360, 30, 64, 16
"""Sizes in pixels: width of the picture, of the names and of the longest bar; height of a row, of
the head and of the margin."""
_WORDS = 34
"""Maximum number of characters, in total, of a cluster's name and of the words that describe it."""
_INK, _SOFT, _BLUE, _GREY = "#1b1f24", "#5b6570", "#2563a8", "#b9c1ca"


def mixture_chart(mixture: Mixture, shares: Mixture, words: Mapping[str, str]) -> bytes:
    """Return an SVG file with two bars for each cluster: its weight and its token share.

    Clusters are sorted by weight. If there are more than `MOST_ROWS`, the other clusters share one
    row. ``shares`` are the token shares of all clusters; ``words`` describes clusters, by name.
    """
    weights = mixture.weights
    rows = [(name, weights.get(name, 0.0), share) for name, share in shares.weights.items()]
    shown, rest = _largest(rows)
    bars = [(f"{name} {words.get(name, '')}".strip(), weight, of) for name, weight, of in shown]
    if rest:
        label = f"{len(rest):,} other clusters"
        bars.append((label, sum(w for _, w, _ in rest), sum(s for *_, s in rest)))
    most = max(max(weight, share) for _, weight, share in bars) or 1.0
    height = _HEAD + _ROW * len(bars) + _EDGE
    marks = [_row(number, *bar, most) for number, bar in enumerate(bars)]
    title = "Weights of the mixture and token shares, by cluster"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
        f'width="{_WIDTH}" height="{height}" font-family="system-ui, sans-serif" font-size="13">'
        f"<title>{title}</title>"
        f'<rect width="{_WIDTH}" height="{height}" rx="6" fill="#ffffff"/>'
        f"{_legend()}{''.join(marks)}</svg>\n"
    ).encode()


def _largest(
    rows: Sequence[tuple[str, float, float]],
) -> tuple[list[tuple[str, float, float]], list[tuple[str, float, float]]]:
    """Return the rows to show, with the largest weight first, and all other rows."""
    if len(rows) <= MOST_ROWS:
        kept = {name for name, *_ in rows}
    else:
        ranked = sorted(rows, key=lambda row: -max(row[1], row[2]))
        kept = {name for name, *_ in ranked[: MOST_ROWS - 1]}
    shown = sorted((row for row in rows if row[0] in kept), key=lambda row: -row[1])
    return shown, [row for row in rows if row[0] not in kept]


def _legend() -> str:
    entries = ((_LEFT, _BLUE, "weight in the mixture"), (_LEFT + 180, _GREY, "share of tokens"))
    return "".join(
        f'<rect x="{x}" y="26" width="12" height="12" fill="{color}"/>'
        f'<text x="{x + 18}" y="37" fill="{_INK}">{text}</text>'
        for x, color, text in entries
    )


def _row(number: int, label: str, weight: float, share: float, most: float) -> str:
    """Return the SVG of one row: the name of a cluster, its two bars and their numbers."""
    top = _HEAD + _ROW * number
    name = label if len(label) <= _WORDS else f"{label[: _WORDS - 1].rstrip()}…"
    ends = [_LEFT + _BAR * value / most for value in (weight, share)]
    return (
        f'<text x="{_LEFT - 12}" y="{top + 14}" text-anchor="end" fill="{_INK}">{escape(name)}'
        "</text>"
        f'<rect x="{_LEFT}" y="{top}" width="{ends[0] - _LEFT:.1f}" height="12" fill="{_BLUE}"/>'
        f'<rect x="{_LEFT}" y="{top + 13}" width="{ends[1] - _LEFT:.1f}" height="6" '
        f'fill="{_GREY}"/>'
        f'<text x="{max(ends) + 8:.1f}" y="{top + 14}" fill="{_INK}">{weight:.1%}'
        f'<tspan fill="{_SOFT}"> against {share:.1%}</tspan></text>'
    )
