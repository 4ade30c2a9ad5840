"""What a build decides of text that no bar was set on, in any human or programming language.

Each FOLDER holds good text of one language, one document a file; the name of the folder is the
label of its documents. ``--code`` names those that hold programs. Nothing else is known of the
text, so junk is made here of every third document of prose, the kinds in turn (`JUNK`). Good text
and junk are built with ``--label group`` into a temporary folder. Figures are given by folder:

* ok: documents that stay, or of which a copy stays, bar .97;
* low: junk that gets into no shard, for whatever reason, bar .70.

Debian's packages ``manpages-LANGUAGE`` make good folders: ``man --nh --nj -l FILE`` renders a page.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from measure import report

EACH = 3
"""Junk is made of one document in so many."""
LEAST, MOST = 300, 8_000
"""Characters of a document: shorter ones are left out, longer ones are cut."""

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--code", nargs="*", default=[], help="names of folders of programs")
    parser.add_argument("--keep", type=Path, help="write what became of each document here")
    options, _ = parser.parse_known_args()
    if not options.folders:
        print("no folders of text: name one for each language", file=sys.stderr)
        return
    records = [record for folder in options.folders for record in read(folder)]
    records += make_junk([r for r in records if r["group"] not in options.code])
    outcomes = build(records)
    if options.keep:
        options.keep.write_text(json.dumps(outcomes, default=str, indent=1))
    groups = defaultdict(list)
    for record in records:
        groups[record["group"]].append(record)
        groups["all programs" if record["group"] in options.code else "all prose"].append(record)
    for name, members in groups.items():
        report_group(name, members, outcomes)
    for kind in JUNK:
        low = [not outcomes[r["id"]]["cluster"] for r in records if r["kind"] == kind]
        report(f"low dropped: {kind}", float(np.mean(low or [0])), "", f"{len(low)} documents")


def read(folder: Path) -> Iterator[Record]:
    seen = set()
    for file in sorted(folder.iterdir()):
        text = file.read_bytes().decode("utf-8", "ignore")[:MOST].strip()
        if len(text) >= LEAST and text not in seen:
            seen.add(text)
            yield {
                "id": f"{folder.name}/{file.name}",
                "text": text,
                "group": folder.name,
                "kind": "",
            }


def make_junk(records: list[Record]) -> Iterator[Record]:
    chance = random.Random(17)
    for number, record in enumerate(records[::EACH]):
        kind = list(JUNK)[number % len(JUNK)]
        text = JUNK[kind](record["text"], chance)
        yield {"id": f"{record['id']}#{kind}", "text": text, "group": record["group"], "kind": kind}


def shuffle_words(text: str, chance: random.Random) -> str:
    words = text.split()
    chance.shuffle(words)
    return " ".join(words)


def shuffle_characters(text: str, chance: random.Random) -> str:
    return " ".join("".join(chance.sample(word, len(word))) for word in text.split(" "))


def repeat_line(text: str, chance: random.Random) -> str:
    return "\n".join([max(text.splitlines()[:20], key=len)] * chance.randint(15, 40))


def misread(text: str, _: random.Random) -> str:
    """Read UTF-8 as Latin-1, which mangles what is no ASCII."""
    return text.encode().decode("latin-1")


JUNK = {
    "shuffled words": shuffle_words,
    "shuffled characters": shuffle_characters,
    "repeated line": repeat_line,
    "mojibake": misread,
}


def build(records: list[Record]) -> dict[str, Record]:
    """Build ``records``, and give their rows in the catalogue by identifier."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = Path(folder) / "corpus.jsonl", Path(folder) / "shards"
        lines = (json.dumps({k: r[k] for k in ("id", "text", "group")}) for r in records)
        corpus.write_text("\n".join(lines) + "\n")
        climb = Path(sys.executable).with_name("climb")
        arguments = ["--clusters", "12", "--label", "group", "--out", str(out)]
        command = [str(climb), "build", str(corpus), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        parts = sorted(out.glob("documents/part-*.parquet"))
        rows = [row for part in parts for row in pq.read_table(part).to_pylist()]
    for row in rows:
        row["copy_of"] = None if row["copy_of"] is None else rows[row["copy_of"]]["id"]
    return {row["id"]: row for row in rows}


def report_group(name: str, records: list[Record], outcomes: dict[str, Record]) -> None:
    def stays(identifier: str | None) -> bool:
        return identifier is not None and outcomes[identifier]["cluster"] is not None

    good = [r["id"] for r in records if not r["kind"]]
    kept = [stays(i) or stays(outcomes[i]["copy_of"]) for i in good]
    low = [not stays(r["id"]) for r in records if r["kind"]]
    dropped = f"low dropped {np.mean(low):.3f} of {len(low)}; " if low else ""
    report(f"ok kept, {name}", float(np.mean(kept)), "", f"{dropped}ok of {len(kept):,}")


if __name__ == "__main__":
    main()
