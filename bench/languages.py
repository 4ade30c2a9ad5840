"""Measure the decisions of a build on text in many languages: quality, copies and clusters.

``--corpus FOLDER`` is a folder with ``text.jsonl.zst``, whose documents have the fields ``id, text,
lang, script, source, topic, quality, parallel, copy_of, edit, why``; its README describes them. The
bench builds these documents with ``--clusters 12 --label lang`` into a temporary folder. With
``--built DIR``, it uses the shards in DIR, which were built from these documents before, and builds
nothing. The build reads ``text``, ``id`` and ``license``, and it uses ``lang`` only for its report.

Figures are reported by language and for two parts of the corpus. One part, on which thresholds were
tuned, is the languages `TUNED` in the sources `SOURCES`; the other part is the rest. The measures
of quality and their first thresholds were chosen with knowledge of the whole corpus
(docs/decisions/selection.md), so for these the other part is no blind test.

* ok: the share of natural documents that are kept, or of which a copy is kept; the bar is .97 in
  every language;
* low: the share of planted junk that gets into no shard, for whatever reason; the bar is .70 in
  every language;
* copies: the recall is the share of planted pairs of which one document is left out as a copy (bar
  .95). The precision is the share of documents left out as near copies that are really copies (bar
  .98). A document is really a copy if it and the document of which it is called a copy have the
  same original, or if their sets of five-character sequences have a Jaccard similarity of .7 or
  more;
* clusters: normalised mutual information (NMI) of the clusters and of the micro-clusters with topic
  and with language, over the natural documents that are kept. Also, the share of pairs of
  translations of one page that are in the same micro-cluster.
"""

import argparse
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from measure import report

from builder import COPIES, EXACT, read
from climbstream.builder.features.words import fold
from climbstream.builder.report.describe import label_agreement

CORPUS = Path(__file__).parents[2] / "shared" / "languages"
TUNED = {"en", "de", "ru", "zh-Hans", "ar", "hi", "th"}
SOURCES = {"react", "fastapi", "stories", "planted"}
ALIKE = 0.7

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--built", type=Path, help="what was built of it before")
    options, _ = parser.parse_known_args()
    file = options.corpus / "text.jsonl.zst"
    if not file.is_file():
        print(f"no {file}: name its folder with --corpus", file=sys.stderr)
        return
    with tempfile.TemporaryDirectory() as folder:
        built = options.built or Path(folder) / "shards"
        if not options.built:
            climb = Path(sys.executable).with_name("climb")
            arguments = ["--clusters", "12", "--label", "lang", "--out", str(built)]
            command = [str(climb), "build", str(file), *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        parts = sorted(built.glob("documents/part-*.parquet"))
        rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    records = join(read([file]), rows)
    groups = defaultdict(list)
    for record in records:
        groups[record["group"]].append(record)
    missed = []
    for name, members in sorted(groups.items()):
        missed += report_group(f"{name}{' (tuned on)' if name in TUNED else ''}", members)
    report("bars missed by a language", len(missed), "", "; ".join(missed) or "none")
    report_group("all that was tuned on", [r for r in records if is_tuned(r)])
    report_group("all the rest", [r for r in records if not is_tuned(r)])
    report_group("all", records)
    report_kinds(records)
    report_precision(records)
    report_clusters(records)
    report_languages(records)


def is_tuned(record: Record) -> bool:
    return record["group"] in TUNED and record["source"] in SOURCES


def join(records: Iterable[Record], rows: list[Record]) -> list[Record]:
    """Return the records with their row of the catalogue as ``outcome``, and keys derived from it.

    ``found`` is the record of which the build calls it a copy, or None; ``group`` is the language,
    with the script for Chinese; ``kin`` is the id of the original; ``stays`` is whether it is in a
    shard; ``copies`` are all records with the same original.
    """
    outcomes = {row["id"]: row for row in rows}
    joined = [{**record, "outcome": outcomes[record["id"]]} for record in records]
    by_id = {record["id"]: record for record in joined}
    copies = defaultdict(list)
    for record in joined:
        exact = record["outcome"]["why"] == EXACT
        original = None if exact else record["outcome"]["copy_of"]
        record["found"] = None if original is None else by_id[rows[original]["id"]]
        record["group"] = f"zh-{record['script']}" if record["lang"] == "zh" else record["lang"]
        record["kin"] = record["copy_of"] or record["id"]
        copies[record["kin"]].append(record)
    for record in joined:
        record["stays"] = record["outcome"]["cluster"] is not None
        record["copies"] = copies[record["kin"]]
    return joined


def is_natural(record: Record) -> bool:
    return record["quality"] == "ok" and not record["copy_of"]


def lives(record: Record) -> bool:
    """Return whether a document or a copy of it is in a shard."""
    return record["stays"] or any(copy["outcome"]["cluster"] for copy in record["copies"])


def is_found(record: Record) -> bool:
    """Return whether a planted copy or its original is left out as a copy."""
    pair = [r for r in record["copies"] if r["id"] in (record["id"], record["copy_of"])]
    return any(r["outcome"]["why"] in COPIES for r in pair)


def share(values: list[bool]) -> str:
    return f"{np.mean(values):.3f} of {len(values):,}" if values else "none"


def report_group(name: str, records: list[Record]) -> list[str]:
    """Report the figures that have a bar for one group; return those that miss their bar."""
    ok = [lives(r) for r in records if is_natural(r)]
    low = [not r["stays"] for r in records if r["quality"] == "low"]
    copies = [is_found(r) for r in records if r["copy_of"]]
    note = f"low dropped {share(low)}; copies {share(copies)}; ok of {len(ok):,}"
    report(f"ok kept, {name}", float(np.mean(ok)), "", note)
    bars = (("ok", ok, 0.97), ("low", low, 0.70), ("copies", copies, 0.95))
    return [f"{name}: {what} {share(v)}" for what, v, bar in bars if v and np.mean(v) < bar]


def report_kinds(records: list[Record]) -> None:
    for kind in sorted({r["why"] for r in records if r["why"]}):
        low = [r for r in records if r["why"] == kind]
        tuned = share([not r["stays"] for r in low if is_tuned(r)])
        fallen = float(np.mean([not r["stays"] for r in low]))
        report(f"low dropped: {kind}", fallen, "", f"{len(low)} documents; tuned on {tuned}")
    for edit in sorted({r["edit"] for r in records if r["edit"]}):
        copies = [r for r in records if r["edit"] == edit]
        recall = float(np.mean([is_found(r) for r in copies]))
        report(f"copies found: {edit}", recall, "", f"bar .95; {len(copies)} pairs")
    lost = Counter(r["outcome"]["why"] for r in records if is_natural(r) and not lives(r))
    for why, count in lost.most_common():
        report(f"  ok lost: {why}", count, "documents", "")


def report_precision(records: list[Record]) -> None:
    called = [r for r in records if r["found"]]
    right = [r["kin"] == r["found"]["kin"] or alike(r, r["found"]) >= ALIKE for r in called]
    note = f"bar .98; of {len(called)} documents left out as near copies"
    report("precision of copies", float(np.mean(right or [1.0])), "", note)


def alike(one: Record, other: Record) -> float:
    """Return the Jaccard similarity of the sets of five-character sequences of two texts."""
    some, others = five_characters(one["text"]), five_characters(other["text"])
    return len(some & others) / len(some | others)


def five_characters(text: str) -> set[str]:
    plain = "".join(character for character in fold(text).casefold() if character.isalnum())
    return {plain[at : at + 5] for at in range(max(len(plain) - 4, 1))}


def report_clusters(records: list[Record]) -> None:
    good = [r for r in records if is_natural(r) and r["stays"]]
    for place in ("micro", "cluster"):
        for what, bar in (("topic", "above that with language"), ("lang", "")):
            counts = defaultdict(Counter)
            for record in good:
                counts[record["outcome"][place]][record[what]] += 1
            agreement = label_agreement(list(counts.values()))
            assert agreement is not None
            note = f"{len(counts)} of them; {bar}" if bar else ""
            name = "micro-clusters" if place == "micro" else "clusters"
            report(f"NMI of {name} with {what}", agreement["nmi"], "", note)
    pages = defaultdict(list)
    for record in good:
        if record["parallel"]:
            pages[record["parallel"]].append(record["outcome"]["micro"])
    together = [a == b for micros in pages.values() for a, b in combinations(micros, 2)]
    note = f"{len(together):,} pairs"
    report("translations that share a micro-cluster", float(np.mean(together)), "", note)


def report_languages(records: list[Record]) -> None:
    """Report the share of natural documents whose language the catalogue names correctly."""
    if "language" not in records[0]["outcome"]:
        return
    right = [r["outcome"]["language"] == r["lang"] for r in records if is_natural(r)]
    note = f"{len(right):,} documents"
    report("languages that are named rightly", float(np.mean(right)), "", note)


if __name__ == "__main__":
    main()
