"""Tables of clusters: as text for a terminal, and as HTML for a report."""

from collections.abc import Mapping, Sequence
from html import escape

from climbstream.loader.core.console import counted, text_table
from climbstream.loader.core.html_page import bar, isolated, listed, quotation, table

from .clusters import ClusterInfo, CopyCounts, score_title
from .licenses import UNKNOWN, split_licenses
from .manifest import Manifest, Size, join_licenses, single_licenses
from .mixture import some_names

_LICENSES = 5
"""Number of licences that are named per cluster: those with the most tokens."""


def unlicensed_text(manifest: Manifest) -> str:
    """Return a text that says how many documents state no licence, and their share of the tokens.

    Returns "" if each document states a licence. If documents were not counted by licence, as after
    an import of a data set whose card names licences, the text has no numbers.
    """
    sizes = join_licenses(cluster.licenses for cluster in manifest.clusters)
    if sizes or manifest.license != UNKNOWN:
        size = sizes.get(UNKNOWN, Size(0, 0))
    else:
        size = Size(sum(cluster.documents for cluster in manifest.clusters), manifest.tokens)
    if not sizes and size.documents == 0 and UNKNOWN in split_licenses(manifest.license):
        return "a part of the documents states no licence; how many, was not counted"
    if not size.documents:
        return ""
    states = "states" if size.documents == 1 else "state"
    share = size.tokens / max(manifest.tokens, 1)
    percent = f"{100 * share:.1f} %"
    return f"{counted(size.documents, 'document')} ({percent} of tokens) {states} no licence"


def license_text(manifest: Manifest) -> str:
    """Return the licences of ``manifest``, and how many documents state none, on one line."""
    unlicensed = unlicensed_text(manifest)
    return f"{manifest.license}; {unlicensed}" if unlicensed else manifest.license


def license_counts_text(manifest: Manifest) -> str:
    """Return a line with the tokens and documents of each licence; "" if they are not counted."""
    sizes = join_licenses(cluster.licenses for cluster in manifest.clusters)
    return f"by licence: {licenses_text(sizes, most=_LISTED)}" if sizes else ""


def licenses_text(
    licenses: Mapping[str, Size], spellings: Sequence[str] = (), most: int = _LICENSES
) -> str:
    """Return a text with the tokens and documents of the ``most`` licences with the most tokens.

    A document with several licences counts for each of them. Licences are spelled as in
    ``spellings``; see `single_licenses`.

    >>> licenses_text({"unknown": Size(1, 20), "MIT": Size(12, 3400)})
    'MIT 3,400 tokens in 12 documents; unknown 20 tokens in 1 document'
    """
    sizes = single_licenses(licenses, spellings)
    ordered = sorted(sizes.items(), key=lambda item: -item[1].tokens)
    parts = [
        f"{' '.join(name.split())} {counted(size.tokens, 'token')} in "
        f"{counted(size.documents, 'document')}"
        for name, size in ordered[:most]
    ]
    more = len(ordered) - most
    return "; ".join([*parts, *([f"{more} more"] if more > 0 else [])])


_LISTED = 40
"""Largest number of clusters that a table in a terminal lists."""


def largest(sizes: Mapping[str, float], most: int = _LISTED) -> list[str]:
    """Return the names of the ``most`` largest ``sizes``, largest first.

    If there are not more than ``most`` names, all are returned, in their order in ``sizes``.
    """
    if len(sizes) <= most:
        return [*sizes]
    return sorted(sizes, key=lambda name: -sizes[name])[:most]


def others_text(sizes: Mapping[str, float], where: str) -> str:
    r"""Return a line that says how much a table leaves out if it lists only `largest` names.

    ``where`` is the end of the line, which says where all names are listed. The result is "" if
    nothing is left out.

    >>> others_text({f"c{n}": 1 for n in range(50)}, "mixture.json lists all")
    '\n40 of 50 are listed, the largest; the other 10 together have 20.0%. mixture.json lists all.'
    >>> others_text({f"c{n}": 1 for n in range(41)}, "mixture.json lists all")
    '\n40 of 41 are listed, the largest; the other one has 2.4%. mixture.json lists all.'
    """
    names = largest(sizes)
    rest = len(sizes) - len(names)
    if not rest:
        return ""
    share = 1 - sum(sizes[name] for name in names) / (sum(sizes.values()) or 1)
    others = "the other one has" if rest == 1 else f"the other {rest:,} together have"
    listed = f"{len(names):,} of {len(sizes):,} are listed, the largest"
    return f"\n{listed}; {others} {share:.1%}. {where}."


def clusters_text(manifest: Manifest, clusters: Sequence[ClusterInfo]) -> str:
    """Return a table for a terminal of the clusters of ``manifest``, with their descriptions."""
    about = {info.name: info for info in clusters}
    sizes = {cluster.name: cluster.tokens for cluster in manifest.clusters}
    entries = {cluster.name: cluster for cluster in manifest.clusters}
    rows = []
    for cluster in map(entries.__getitem__, largest(sizes)):
        info = about.get(cluster.name)
        members = some_names([member.name for member in manifest.members.get(cluster.name, ())])
        rows.append(
            (
                cluster.name,
                info.words if info else members,
                f"{cluster.documents:,}",
                f"{cluster.tokens:,}",
                f"{cluster.tokens / manifest.tokens:.1%}",
                f"{info.quality['overall']:.1f}" if info and info.quality else "",
            )
        )
    heads = ("cluster", "words", "documents", "tokens", "share", "quality")
    return text_table(heads, rows, left=2) + others_text(sizes, "climb inspect --json lists all")


def copies_text(clusters: Sequence[ClusterInfo]) -> str:
    """Return a line on documents that occur more than once; "" if copies are not counted.

    >>> from climbstream.loader.formats.clusters import CopyCounts
    >>> about = dict(documents=9, tokens=90, bytes=0, quality={}, labels={}, terms=(), samples=())
    >>> counts = CopyCounts(documents=2, exact=4, near=1, several_sources=1)
    >>> copies_text([ClusterInfo(name="c00", micro=(), copy_counts=counts, **about)])
    'copies left out: 4 exact and 1 near, of 2 documents in shards; 1 is in several sources'
    """
    counts = [info.copy_counts for info in clusters if info.copy_counts is not None]
    if not counts:
        return ""
    total = sum(counts, CopyCounts())
    verb = "is" if total.several_sources == 1 else "are"
    return (
        f"copies left out: {total.exact:,} exact and {total.near:,} near, of "
        f"{counted(total.documents, 'document')} in shards; {total.several_sources:,} {verb} in "
        "several sources"
    )


_SAMPLES = 600
"""Largest number of sample documents on a page, so that a page of many clusters stays small."""


def cluster_table(clusters: Sequence[ClusterInfo]) -> str:
    """Return an HTML table with a row for each cluster: words, size, quality and samples.

    It has a column of known domains if there are any, and one of languages if there are several.
    """
    total = sum(c.tokens for c in clusters) or 1
    most = max((c.tokens for c in clusters), default=0) or 1
    known_domains = ["known domains"] if any(c.labels for c in clusters) else []
    languages = ["languages"] if len({name for c in clusters for name in c.languages}) > 1 else []
    each = max(1, _SAMPLES // max(len(clusters), 1))
    rows: list[tuple[str | tuple[str, str], ...]] = []
    for c in clusters:
        samples = "".join(quotation(s["id"], s["text"]) for s in c.samples[:each])
        words = f"<b>{listed(c.terms[:4])}</b> {listed(c.terms[4:])}"
        rows.append(
            (
                f"<code>{escape(c.name)}</code>",
                f"{words}<details><summary>samples</summary>{samples}</details>",
                f"{c.documents:,}",
                f"{c.tokens:,}",
                (
                    f'data-v="{c.tokens}"',
                    f"{bar(c.tokens / most)}&nbsp;{c.tokens / total:.1%}",
                ),
                *(f"{value:.1f}" for value in c.quality.values()),
                *([_most_frequent(c.labels)] if known_domains else []),
                *([_most_frequent(c.languages)] if languages else []),
            )
        )
    scores = list(clusters[0].quality if clusters else ())
    heads = (
        "cluster",
        "words",
        "documents",
        "tokens",
        "share",
        *map(score_title, scores),
        *known_domains,
        *languages,
    )
    return table(
        heads,
        rows,
        numbers=(2, 3, *range(5, 5 + len(scores))),
        texts=(1,),
        clusters=[c.name for c in clusters],
    )


def _most_frequent(counts: Mapping[str, int]) -> str:
    """Return the three most frequent names as HTML, with shares of 1 % or more.

    ``counts`` has the most frequent name first.
    """
    total = sum(counts.values()) or 1
    return ", ".join(
        f"{isolated(name)} {count / total:.0%}"
        for name, count in list(counts.items())[:3]
        if count / total >= 0.01
    )
