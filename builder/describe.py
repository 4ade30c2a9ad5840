"""Describe clusters: what sets their words apart, how good they are, a few of their documents."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.metrics import normalized_mutual_info_score

from climbstream.loader.clusters import ClusterInfo
from climbstream.loader.manifest import ClusterEntry
from climbstream.loader.order import shuffled

from .clustermap import ClusterMap
from .fates import Fates, split
from .settings import SCORES
from .unit import Unit

_TERMS = 8
_FEATURES = 20_000
_READ = 200
"""Documents of a cluster that its words are taken from."""
_SHOWN = 4


def describe_clusters(
    units: Sequence[Unit], fates: Fates, clusters: ClusterMap, entries: Sequence[ClusterEntry]
) -> list[ClusterInfo]:
    """Describe each cluster that was written."""
    scores = np.concatenate([unit.read("scores") for unit in units])
    members = [np.flatnonzero(fates.stays & (fates.cluster == k)) for k in range(len(entries))]
    drawn = [m[shuffled(len(m), "describe", k)[:_READ]] for k, m in enumerate(members)]
    texts = _texts(units, np.concatenate(drawn))
    terms = name_terms([[texts[i]["text"] for i in group.tolist()] for group in drawn])
    labels = np.concatenate([np.array(unit.column("label"), dtype=object) for unit in units])
    return [
        ClusterInfo(
            name=entry.name,
            terms=terms[k],
            documents=entry.documents,
            tokens=entry.tokens,
            bytes=int(fates.sizes[members[k]].sum()),
            quality={
                name: round(float(mean), 3)
                for name, mean in zip(SCORES, scores[members[k]].mean(axis=0), strict=True)
            },
            labels={n: c for n, c in Counter(labels[members[k]]).most_common() if n},
            samples=tuple(
                {"id": texts[i]["id"], "text": opening(texts[i]["text"])}
                for i in drawn[k][:_SHOWN].tolist()
            ),
            micro=tuple(np.flatnonzero(clusters.cluster == k).tolist()),
        )
        for k, entry in enumerate(entries)
    ]


def _texts(units: Sequence[Unit], chosen: NDArray[np.int64]) -> dict[int, dict[str, str]]:
    """Read ``id`` and ``text`` of the ``chosen`` documents, by their number in the corpus."""
    wanted = np.zeros(sum(len(unit) for unit in units), np.bool_)
    wanted[chosen] = True
    rows: list[dict[str, str]] = []
    for unit, mask in zip(units, split(wanted, units), strict=True):
        rows += unit.columns("id", "text").filter(mask).to_pylist()
    return dict(zip(np.flatnonzero(wanted).tolist(), rows, strict=True))


def label_agreement(labels: Sequence[str], clusters: Sequence[int]) -> dict[str, float] | None:
    """Say how well clusters match known domains, over the documents that have one.

    ``nmi``, normalised mutual information, and ``purity``, the part of the documents that lie in a
    cluster where their domain is the most frequent; None if no domain is known.
    """
    known = [(label, cluster) for label, cluster in zip(labels, clusters, strict=True) if label]
    if not known:
        return None
    names, groups = zip(*known, strict=True)
    most: dict[int, Counter[str]] = {}
    for name, group in known:
        most.setdefault(group, Counter())[name] += 1
    purity = sum(counts.most_common(1)[0][1] for counts in most.values()) / len(known)
    return {"nmi": float(normalized_mutual_info_score(names, groups)), "purity": purity}


def name_terms(groups: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
    """Find the words that set each group of texts apart, strongest first.

    As class-based TF-IDF does (Grootendorst, arXiv 2203.05794), but by the part of the documents
    that hold a word, so that one long document cannot name a cluster.
    """
    counter = CountVectorizer(
        binary=True,
        max_features=_FEATURES,
        token_pattern=r"(?u)\b[^\W\d_]{3,}\b",
        stop_words="english",
    )
    try:
        holds = counter.fit_transform([text for group in groups for text in group])
    except ValueError:  # no word in any text
        return [() for _ in groups]
    words = counter.get_feature_names_out()
    ends = np.cumsum([len(group) for group in groups])
    parts = zip([0, *ends[:-1]], ends, strict=True)
    share = np.stack([np.asarray(holds[a:b].mean(axis=0)).ravel() for a, b in parts])
    weight = share * np.log(np.maximum(share, 1e-9) / np.maximum(share.mean(axis=0), 1e-9))
    best = np.argsort(-weight, axis=1, kind="stable")[:, :_TERMS]
    return [tuple(str(words[i]) for i in row if weight[k, i] > 0) for k, row in enumerate(best)]


def opening(text: str, most: int = 300) -> str:
    """Return how ``text`` begins, in at most ``most`` characters, on one line."""
    line = " ".join(text[: 4 * most].split())
    return line if len(line) <= most else line[: most - 1] + "…"
