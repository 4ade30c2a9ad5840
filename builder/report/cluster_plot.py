"""A map of the micro-clusters in two dimensions, coloured by cluster.

A micro-cluster is drawn as a dot or, if it was pruned, as a cross. The area of a dot shows the
number of documents.

The two coordinates are computed from the first two principal components of the centroids. A
coordinate is the mean of the value of its component and of the rank of this value. The rank spreads
dense regions out, and the value keeps neighbours near each other.
"""

from collections.abc import Mapping, Sequence
from html import escape

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from climbstream.loader.formats.clusters import ClusterInfo

_WIDTH, _HEIGHT, _MARGIN = 960, 600, 40
_NAMED = 24
"""Maximum number of clusters whose names are on the map: the first ones. A name for which there is
no room is left out. With more clusters than this, the legend is folded."""
_ROOM = 130
"""Width that a name needs, in units of the drawing."""


def plot_clusters(
    centroids: NDArray[np.float32],
    clusters: Sequence[ClusterInfo],
    pruned: Mapping[int, str] | None = None,
) -> str:
    """Return HTML with a drawing of the micro-clusters; "" if there are fewer than three.

    ``centroids`` has one row per micro-cluster. A cluster is left out unless the number of
    documents in each of its micro-clusters is known. ``pruned`` has the reason for each pruned
    micro-cluster.
    """
    shown = [c for c in clusters if c.micro and len(c.micro) == len(c.micro_documents)]
    micro = np.array([m for c in shown for m in c.micro], np.int64)
    if len(micro) < 3:
        return ""
    crossed = [m for m in pruned or {} if 0 <= m < len(centroids)]
    places = _places(centroids[np.concatenate([micro, np.array(crossed, np.int64)])])
    documents = np.array([n for c in shown for n in c.micro_documents], np.float64)
    radii = 1.5 + 24 * np.sqrt(documents / documents.max()) * min(1, (60 / len(micro)) ** 0.25)
    dots, names, items = [], [], []
    begin = 0
    for number, cluster in enumerate(shown):
        end = begin + len(cluster.micro)
        title = escape(f"{cluster.name}: {cluster.words}")
        # Hues are a golden angle apart. Clusters 5, 8 or 13 apart have similar hues, but always
        # another lightness.
        lightness = (50, 34, 68)[number % 3]
        color = f"hsl({number * 137.5 % 360:.0f} 65% {lightness}%)"
        items.append(f'<li><i style="--c:{color}"></i>{title}</li>')
        circles = "".join(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="{r:.1f}"/>'
            for (x, y), r in zip(places[begin:end], radii[begin:end], strict=True)
        )
        dots.append(
            f'<g fill="{color}" fill-opacity=".62" data-tip="{title}" '
            f'data-cluster="{escape(cluster.name)}">{circles}</g>'
        )
        if number < _NAMED:
            largest = begin + int(np.argmax(documents[begin:end]))
            x, y = places[largest]
            word = escape(cluster.terms[0] if cluster.terms else "")
            names.append((x, y, radii[largest], f"{escape(cluster.name)}<tspan> {word}</tspan>"))
        begin = end
    crosses = "".join(
        f'<path d="M{x - 3:.1f} {y - 3:.1f}l6 6m0-6l-6 6" '
        f'data-tip="pruned: {escape((pruned or {})[m])}"/>'
        for m, (x, y) in zip(crossed, places[begin:], strict=True)
    )
    legend = f'<ul class="legend">{"".join(items)}</ul>'
    if len(items) > _NAMED:
        summary = f"colours of the {len(items):,} clusters"
        legend = f"<details><summary>{summary}</summary>{legend}</details>"
    written = _written(names, np.column_stack([places[: len(radii)], radii]))
    return (
        f'<div class="plot map"><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" role="img" '
        f'aria-label="Map of the micro-clusters">'
        f'<g stroke="var(--soft)" stroke-width="1.5">{crosses}</g>'
        f"{''.join(dots)}{written}</svg></div>{legend}"
    )


def _places(centroids: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the coordinates of ``centroids``, ``[m, dims]``, in the drawing: ``[m, 2]``."""
    moved = centroids.astype(np.float64) - centroids.mean(axis=0, dtype=np.float64)
    # One thread, and signs that follow from the largest value, give the same picture everywhere.
    with threadpool_limits(1, "blas"):
        _, _, axes = np.linalg.svd(moved, full_matrices=False)
        flat = moved @ axes[:2].T
    flat *= np.sign(flat[np.argmax(np.abs(flat), axis=0), np.arange(flat.shape[1])])
    span = np.maximum(np.ptp(flat, axis=0), 1e-9)
    value = (flat - flat.min(axis=0)) / span
    rank = np.argsort(np.argsort(flat, axis=0, kind="stable"), axis=0) / max(len(flat) - 1, 1)
    room = np.array([_WIDTH - 3 * _MARGIN, _HEIGHT - 2 * _MARGIN])
    places: NDArray[np.float64] = _MARGIN + (0.5 * value + 0.5 * rank) * room
    return places


def _written(names: Sequence[tuple[float, float, float, str]], dots: NDArray[np.float64]) -> str:
    """Return the SVG of names beside their dots; leave out a name that would overlap another.

    A name is to the right of its dot or, if other dots or the edge are in the way there, to the
    left, if there is room. Each of ``names`` has the coordinates of a dot, its radius, and the
    text. ``dots`` has the coordinates and radius of each dot, ``[n, 3]``.
    """
    taken: list[tuple[float, float]] = []
    texts = []
    for x, y, radius, text in names:
        right, left = x + radius + 4, x - radius - 4
        covered = [_dots_in(dots, begin, y) for begin in (right, left - _ROOM)]
        is_left = right + _ROOM > _WIDTH or (left >= _ROOM and covered[1] < covered[0])
        begin = left - _ROOM if is_left else right
        if any(abs(y - b) < 15 and abs(begin - a) < _ROOM for a, b in taken):
            continue
        taken.append((begin, y))
        place, anchor = (left, ' text-anchor="end"') if is_left else (right, "")
        texts.append(f'<text x="{place:.1f}" y="{y + 4:.1f}"{anchor}>{text}</text>')
    return "".join(texts)


def _dots_in(dots: NDArray[np.float64], begin: float, y: float) -> int:
    """Return how many ``dots`` touch the room of a name from ``begin``, at height ``y``."""
    x, heights, radii = dots.T
    across = x - np.clip(x, begin, begin + _ROOM)
    down = heights - np.clip(heights, y - 7, y + 7)
    return int((np.hypot(across, down) < radii).sum())
