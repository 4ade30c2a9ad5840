"""Licences in the report: how many documents and tokens each has, in total and by cluster."""

from html import escape

from climbstream.loader.core.html_page import bar, paragraph, section, table
from climbstream.loader.formats.cluster_tables import licenses_text
from climbstream.loader.formats.manifest import Manifest, join_licenses, single_licenses

_SHOWN = 100
"""Maximum number of licences, and of clusters, that are listed."""


def license_sections(manifest: Manifest) -> list[str]:
    """Return a list with the report's section on licences; [] if no document states a licence."""
    totals = join_licenses(cluster.licenses for cluster in manifest.clusters)
    if not totals:
        return []
    sizes = single_licenses(totals)
    ordered = sorted(sizes.items(), key=lambda item: -item[1].tokens)[:_SHOWN]
    share = max(manifest.tokens, 1)
    rows = [
        (
            escape(name),
            f"{size.documents:,}",
            f"{size.tokens:,}",
            f"{bar(size.tokens / share)}&nbsp;{size.tokens / share:.1%}",
        )
        for name, size in ordered
    ]
    note = (
        "Licences as the documents state them; letter case makes no difference. A document with "
        "several licences counts for each of them. unknown: the document states no licence."
    )
    clusters = [
        (f"<code>{escape(c.name)}</code>", escape(licenses_text(c.licenses, [*sizes])))
        for c in manifest.clusters[:_SHOWN]
    ]
    by_cluster = table(("cluster", "licences"), clusters)
    return [
        section(
            "Licences",
            paragraph(note),
            table(("licence", "documents", "tokens", "share"), rows, numbers=(1, 2)),
            f"<details><summary>by cluster</summary>{by_cluster}</details>",
        )
    ]
