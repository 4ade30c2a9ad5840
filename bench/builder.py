"""Compare the decisions of a build with the truth about a corpus: clusters, quality, duplicates.

``--corpus FOLDER`` is a folder with ``corpus/*.jsonl.zst`` and ``truth/near_duplicates.tsv``. The
documents have the fields ``id, text, source, quality, kind``; the README of the folder describes
them. A document of good quality has the quality ``ok``, and junk has the quality ``low``. The bench
builds the documents with ``--label source`` into a temporary folder. With ``--built DIR``, it uses
the shards in DIR, which were built from these documents before, and builds nothing. The build never
reads ``quality`` or ``kind``, and it uses ``source`` only for its report.

The bench prints:

* clusters: how well the clusters agree with ``source``, as normalised mutual information (NMI) and
  purity, over the ``ok`` documents that are kept;
* quality: the AUC with which each score ranks ``ok`` above ``low``, and the AUC of the lower of the
  two scores that prune by default;
* pruned: the share of ``low`` documents that get into no shard, for whatever reason, by kind. The
  share of ``ok`` text that is kept, and the same share if an ``ok`` document also counts as kept
  when a copy of it is kept. If a planted copy has its original in none of the files, it is the only
  version of its text, so it does not count as junk. The share with such copies as junk is printed
  as well;
* domains: the shares of kept and dropped documents by domain, separately for the files in `TUNED`
  and the other files. The thresholds that judge the form of text were set only on `TUNED`. All
  domains are in both sets of files, so no domain is unseen; ``unseen.py`` measures unseen text.
  Domains that miss a bar are listed. The bars are .97 of ``ok`` documents, where a kept copy
  counts, and .70 of junk;
* duplicates: the recall is the share of planted pairs of which one document is left out as a copy.
  The precision is a share of the documents that were left out as near copies: those that share
  enough three-word sequences with the document of which they are called a copy (Jaccard similarity
  .7 or more, computed exactly). There may be more pairs of copies than the planted ones, so the
  planted pairs give no precision.
"""

import argparse
import io
import json
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import zstandard
from measure import report
from sklearn.metrics import roc_auc_score

from climbstream.builder.report.describe import label_agreement
from climbstream.builder.settings import SCORES

CORPUS = Path(__file__).parents[2] / "shared" / "corpus"
ALIKE = 0.7
EXACT = "text seen before"
COPIES = {EXACT, "nearly the same as another"}
TUNED = {"part-000", "part-001"}
"""Files on which the thresholds were set."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, default=CORPUS)
    parser.add_argument("--parts", default="*", help="which files, as a glob: part-00[0-3]*")
    parser.add_argument("--built", type=Path, help="what was built of them before")
    options, _ = parser.parse_known_args()
    if not options.corpus.is_dir():
        print(f"no {options.corpus}: name a corpus with --corpus", file=sys.stderr)
        return
    files = sorted(options.corpus.glob(f"corpus/{options.parts}.jsonl.zst"))
    with tempfile.TemporaryDirectory() as folder:
        built = options.built or Path(folder) / "shards"
        if not options.built:
            climb = Path(sys.executable).with_name("climb")
            arguments = ["--clusters", "20", "--label", "source", "--out", str(built)]
            command = [str(climb), "build", *map(str, files), *arguments]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        parts = sorted(built.glob("documents/part-*.parquet"))
        rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    for row in rows:
        near = row["copy_of"] is not None and row["why"] != EXACT
        row["copy_of"] = rows[row["copy_of"]]["id"] if near else None
    outcomes = {row["id"]: row for row in rows}
    records = [record for record in read(files) if record["id"] in outcomes]
    lines = (options.corpus / "truth/near_duplicates.tsv").read_text().splitlines()[1:]
    truth = [line.split("\t") for line in lines]
    paired = {name for line in truth if {*line[:2]} <= outcomes.keys() for name in line[:2]}
    for record in records:
        record["low"] = record["quality"] == "low" and (
            "_dup" not in record["kind"] or record["id"] in paired
        )
    report_clusters(records, outcomes)
    report_scores(records, outcomes)
    report_pruned(records, outcomes)
    report_split(records, outcomes)
    report_duplicates(records, outcomes, truth)


def read(files: list[Path]) -> Iterator[dict[str, Any]]:
    for file in files:
        with file.open("rb") as raw:
            unpacked = zstandard.ZstdDecompressor().stream_reader(raw)
            for line in io.TextIOWrapper(unpacked, encoding="utf-8"):
                yield json.loads(line) | {"file": file.name.partition(".")[0]}


def report_clusters(records: list[dict[str, Any]], outcomes: dict[str, Any]) -> None:
    good = [r for r in records if r["quality"] == "ok" and outcomes[r["id"]]["cluster"]]
    sources: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for record in good:
        sources[outcomes[record["id"]]["cluster"]][record["source"]] += 1
    agreement = label_agreement(list(sources.values()))
    assert agreement is not None
    note = f"{len(sources)} clusters, {len(good):,} ok documents"
    report("NMI with the true domains", agreement["nmi"], "", f"bar .85; {note}")
    report("purity of clusters", agreement["purity"], "", "bar .80")


def report_scores(records: list[dict[str, Any]], outcomes: dict[str, Any]) -> None:
    good = np.array([r["quality"] == "ok" for r in records])
    scores = np.array([[outcomes[r["id"]][name] for name in SCORES] for r in records])
    for name, column in zip(SCORES, scores.T, strict=True):
        report(f"AUC of {name}", roc_auc_score(good, column), "", "ok above low")
    worse = np.minimum(scores[:, 0], scores[:, 3])
    report("AUC of the lower of overall and advertisement", roc_auc_score(good, worse), "", "")


def report_pruned(records: list[dict[str, Any]], outcomes: dict[str, Any]) -> None:
    stays = {r["id"] for r in records if outcomes[r["id"]]["cluster"]}
    low = [r for r in records if r["low"]]
    gone = share_gone(low, outcomes)
    everything = share_gone([r for r in records if r["quality"] == "low"], outcomes)
    note = f"bar .80; {everything:.3f} with copies whose original is not there"
    report("junk that gets into no shard", gone, "", note)
    by_kind = defaultdict(list)
    for record in low:
        by_kind[record["kind"]].append(record["id"] not in stays)
    for kind, dropped in sorted(by_kind.items()):
        report(f"  {kind}", float(np.mean(dropped)), "", f"{len(dropped):,} documents")
    good = [r for r in records if r["quality"] == "ok"]
    total = sum(len(r["text"]) for r in good)
    kept = sum(len(r["text"]) for r in good if r["id"] in stays)
    alive = sum(
        len(r["text"])
        for r in good
        if r["id"] in stays or outcomes[r["id"]].get("copy_of") in stays
    )
    documents = sum(r["id"] in stays for r in good) / len(good)
    report("ok text that stays", kept / total, "", f"bar .95; of documents {documents:.3f}")
    report("  or a copy of it does", alive / total, "", "")
    whys = defaultdict(int)
    for record in good:
        if record["id"] not in stays:
            whys[outcomes[record["id"]]["why"]] += len(record["text"])
    for why, size in sorted(whys.items(), key=lambda item: -item[1]):
        report(f"  ok text lost: {why}", size / total, "", "")


def report_split(records: list[dict[str, Any]], outcomes: dict[str, Any]) -> None:
    """Report kept and dropped documents by domain, for the files in `TUNED` and for the others."""
    alive = {name for name, row in outcomes.items() if row["cluster"]}
    alive |= {name for name, row in outcomes.items() if row["copy_of"] in alive}
    for name, is_tuned in (("tuned on", True), ("blind", False)):
        part = [r for r in records if (r["file"] in TUNED) == is_tuned]
        by_domain = defaultdict(list)
        for record in part:
            by_domain[record["source"]].append(record)
        domains = sorted(by_domain.items()) if part else []
        missed = []
        for domain, members in [*domains, *([("all domains", part)] if part else [])]:
            good = [r for r in members if r["quality"] == "ok"]
            low = [r for r in members if r["low"]]
            gone = share_gone(low, outcomes) if low else None
            lives = sum(r["id"] in alive for r in good) / len(good) if good else None
            kept = f", as they are {1 - share_gone(good, outcomes):.3f}" if good else ""
            fallen = "none" if gone is None else f"{gone:.3f} of {len(low):,}"
            note = f"of {len(good):,} documents{kept}; junk dropped {fallen}"
            report(f"ok that stay or a copy of them, {name}: {domain}", lives, "", note)
            if (lives is not None and lives < 0.97) or (gone is not None and gone < 0.70):
                missed.append(domain)
        report(f"domains that miss a bar, {name}", len(missed), "", ", ".join(missed) or "none")


def share_gone(records: list[dict[str, Any]], outcomes: dict[str, Any]) -> float:
    return sum(outcomes[r["id"]]["cluster"] is None for r in records) / len(records)


def report_duplicates(
    records: list[dict[str, Any]], outcomes: dict[str, Any], truth: list[list[str]]
) -> None:
    by_kind = defaultdict(list)
    for one, other, kind in truth:
        if one in outcomes and other in outcomes:
            by_kind[kind].append(bool({outcomes[one]["why"], outcomes[other]["why"]} & COPIES))
    planted = [found for kind in by_kind if kind.startswith("near_dup") for found in by_kind[kind]]
    report("recall of exact duplicates", float(np.mean(by_kind["exact_dup"])), "", "bar .95")
    report("recall of planted near duplicates", float(np.mean(planted)), "", "bar .80")
    for kind in ("near_dup_boilerplate", "near_dup_case", "near_dup_edit", "observed_natural"):
        report(f"  {kind}", float(np.mean(by_kind[kind])), "", f"{len(by_kind[kind]):,} pairs")
    texts = {record["id"]: record["text"] for record in records}
    pairs = [(name, row["copy_of"]) for name, row in outcomes.items() if row["copy_of"]]
    right = [alike(texts[one], texts[other]) >= ALIKE for one, other in pairs]
    note = f"bar .95; alike by {ALIKE} or more, of {len(pairs):,}"
    report("precision of duplicates", float(np.mean(right)), "", note)


def alike(one: str, other: str) -> float:
    """Return the Jaccard similarity of the sets of three-word sequences, by letters and digits."""
    some, others = three_words(one), three_words(other)
    return len(some & others) / len(some | others) if some | others else 1.0


def three_words(text: str) -> set[tuple[str, ...]]:
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    return set(zip(words, words[1:], words[2:], strict=False)) or {tuple(words)}


if __name__ == "__main__":
    main()
