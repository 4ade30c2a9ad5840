"""Plots of many mixtures: a triangle for three clusters, parallel axes for any other number."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape

import numpy as np

from climbstream.loader.core.html_page import legend

AXES = 12
"""Largest number of clusters that get an axis. If there are more, clusters are ranked by the
largest weight that any mixture gives them."""
_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _LOW = 860, 300, 56, 36, 16, 48
_SIDE, _EDGE = 380, 60
"""Length of a side of the triangle, and the margin around the triangle, in pixels."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnMixture:
    """A mixture in a plot."""

    weights: Sequence[float]
    """The weight of each cluster, 0 to 1."""
    color: str
    """Name of a colour in page.css, such as ``r3``."""
    tip: str
    """Text that is shown when the mouse points at the mixture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DrawnMixtures:
    """The mixtures that a plot shows."""

    names: Sequence[str]
    """Names of the clusters."""
    trials: Sequence[DrawnMixture]
    """The measured mixtures."""
    best: Sequence[float]
    """Weights of the answer."""
    shares: Sequence[float]
    """Token shares."""
    rounds: Sequence[tuple[str, str, bool]]
    """Entries of the legend for the trials, in the form that `legend` expects."""
    others: Mapping[str, Sequence[float]] = field(default_factory=dict)
    """Weights of further mixtures by name, at most as many as `_OTHER_COLORS`."""

    def draw(self) -> str:
        """Return the plot with its legend as HTML; "" if there is a single cluster."""
        if len(self.names) < 2:
            return ""
        picture = _triangle(self) if len(self.names) == 3 else _parallel(self)
        others = [(n, c, False) for n, c in zip(self.others, _OTHER_COLORS, strict=False)]
        return f"<div>{picture}{legend([*self.rounds, *_MARKED, *others])}</div>"


_MARKED = (("the answer", "ink", False), ("token shares", "soft", True))
_OTHER_COLORS = ("orange", "green")


def _parallel(drawn: DrawnMixtures) -> str:
    """Draw one axis per cluster and one line per mixture."""
    lines = [*(t.weights for t in drawn.trials), *drawn.others.values(), drawn.best, drawn.shares]
    weights = np.array(lines)
    shown = np.sort(np.argsort(-weights.max(axis=0), kind="stable")[:AXES]).tolist()
    most = float(weights[:, shown].max()) or 1.0
    step = (_WIDTH - _LEFT - _RIGHT) / (len(shown) - 1)

    def line(of: Sequence[float], look: str) -> str:
        points = " ".join(
            f"{_LEFT + i * step:.1f},{_height(of[k] / most):.1f}" for i, k in enumerate(shown)
        )
        return f'<polyline points="{points}" fill="none" stroke-linejoin="round" {look}/>'

    marks = [_axis(drawn.names[k], _LEFT + i * step) for i, k in enumerate(shown)]
    marks += [
        f'<text x="{_LEFT - 8}" y="{_height(part) + 4:.1f}" text-anchor="end">'
        f"{part * most:.0%}</text>"
        for part in (0.0, 0.5, 1.0)
    ]
    for trial in drawn.trials:
        look = f'stroke="var(--{trial.color})" stroke-width="1.5" stroke-opacity=".55"'
        marks.append(line(trial.weights, f'{look} data-tip="{escape(trial.tip)}"'))
    marks.append(line(drawn.shares, 'stroke="var(--soft)" stroke-width="2" stroke-dasharray="5 4"'))
    for (name, other), color in zip(drawn.others.items(), _OTHER_COLORS, strict=False):
        look = f'stroke="var(--{color})" stroke-width="3" data-tip="{escape(name)}"'
        marks.append(line(other, look))
    marks.append(line(drawn.best, 'stroke="var(--ink)" stroke-width="3"'))
    return _picture(_WIDTH, _HEIGHT, "Weights of the mixtures, one axis per cluster", marks)


def _axis(name: str, x: float) -> str:
    """Draw the axis of a cluster, with the name of the cluster and its first word below."""
    cluster, _, words = name.partition(" ")
    word = words.partition(",")[0]
    word = word if len(word) <= 9 else f"{word[:8]}…"
    return (
        f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_height(0)}" y2="{_height(1)}" '
        f'stroke="var(--line)"/><text text-anchor="middle" x="{x:.1f}" y="{_height(0) + 18}">'
        f'{escape(cluster)}</text><text text-anchor="middle" x="{x:.1f}" y="{_height(0) + 36}" '
        f'class="small">{escape(word)}</text>'
    )


def _height(part: float) -> float:
    return _HEIGHT - _LOW - part * (_HEIGHT - _LOW - _TOP)


def _triangle(drawn: DrawnMixtures) -> str:
    """Draw a triangle with one corner per cluster and one point per mixture."""
    high = _SIDE * 0.75**0.5
    corners = np.array([[_SIDE / 2, 0.0], [0.0, high], [_SIDE, high]])
    corners += np.array([2 * _EDGE, _EDGE / 2])

    def point(of: Sequence[float], radius: float, look: str) -> str:
        x, y = np.asarray(of) @ corners / (sum(of) or 1.0)
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{radius}" {look}/>'

    outline = "L".join(f"{x:.1f} {y:.1f}" for x, y in corners)
    marks = [f'<path d="M{outline}Z" fill="none" stroke="var(--line)" stroke-width="1.5"/>']
    for a, b, c in ((0, 1, 2), (1, 0, 2), (2, 0, 1)):
        for part in (0.25, 0.5, 0.75):
            ends = [part * corners[a] + (1 - part) * corners[other] for other in (b, c)]
            (x1, y1), (x2, y2) = ends
            marks.append(f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="var(--line)"/>')
    for name, (x, y), down in zip(drawn.names, corners, (-10, 22, 22), strict=True):
        marks.append(
            f'<text text-anchor="middle" x="{x:.1f}" y="{y + down:.1f}">{escape(name)}</text>'
        )
    for trial in drawn.trials:
        look = f'fill="var(--{trial.color})" fill-opacity=".8" data-tip="{escape(trial.tip)}"'
        marks.append(point(trial.weights, 4.5, look))
    marks.append(point(drawn.shares, 7, 'fill="none" stroke="var(--soft)" stroke-width="2"'))
    for (name, weights), color in zip(drawn.others.items(), _OTHER_COLORS, strict=False):
        look = f'fill="none" stroke="var(--{color})" stroke-width="3" data-tip="{escape(name)}"'
        marks.append(point(weights, 9, look))
    marks.append(point(drawn.best, 9, 'fill="none" stroke="var(--ink)" stroke-width="3"'))
    width, height = _SIDE + 4 * _EDGE, round(high) + 2 * _EDGE
    return _picture(width, height, "Weights of the mixtures, one corner per cluster", marks)


def _picture(width: int, height: int, label: str, marks: Sequence[str]) -> str:
    return (
        f'<div class="plot"><svg viewBox="0 0 {width} {height}" width="{width}" role="img" '
        f'aria-label="{label}">{"".join(marks)}</svg></div>'
    )
