"""Measure the decisions of a build on unseen text, in any human or programming language.

Each FOLDER is an unpacked package (``dpkg -x``, ``tar -x``) with manuals, man pages, messages,
declarations, fortunes or plain text in any languages; ``packages.py`` reads it. ``--code`` names
folders of programs. The quality of the text is not labelled. Therefore the bench makes junk from
every third document of prose, in the kinds of `JUNK` in turn. It also makes copies of every fifth
document of prose with 600 characters or more, with the edits of `EDITS` in turn. If a text is in
several packages, only the first one is used. All documents are built into a temporary folder.

Languages and programming languages are split into two halves by a hash of their names. Thresholds
may be set on the half ``first``; the half ``second`` is only for the final measurement. Figures are
reported by package and by language:

* ok: the share of documents that are kept, or of which a copy is kept; the bar is .97;
* low: the share of junk that gets into no shard, for whatever reason; the bar is .70;
* copies: the recall is the share of pairs of which one document is left out as a copy (bar .95).
  The precision is the share of documents left out as near copies that are really copies (bar .98).
  A document is really a copy if it and the document of which it is called a copy have the same
  original, or if their sets of five-character sequences have a Jaccard similarity of .7 or more.
"""

import argparse
import hashlib
import json
import random
import re
import subprocess
import sys
import tempfile
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from languages import ALIKE, alike
from measure import report
from packages import read_package

from builder import COPIES, EXACT
from climbstream.builder.features.characters import is_unspaced

EACH, EACH_COPY = 3, 5
"""Junk is made of one document in `EACH`, and a copy of one long document in `EACH_COPY`."""
LEAST_COPY = 600
"""Least number of characters of a document that is copied."""

Record = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", metavar="FOLDER")
    parser.add_argument("--code", type=Path, nargs="*", default=[], help="folders of programs")
    parser.add_argument("--half", choices=("first", "second"), help="of the languages; both")
    parser.add_argument("--keep", type=Path, help="write what became of each document here")
    parser.add_argument("--all", action="store_true", help="each language, not only the worst")
    options, _ = parser.parse_known_args()
    if not options.folders and not options.code:
        print("no folders of text: name unpacked packages", file=sys.stderr)
        return
    records = [record for folder in options.folders for record in read(folder, code=False)]
    records += [record for folder in options.code for record in read(folder, code=True)]
    records = [r for r in records if options.half in (None, half_of(r["group"]))]
    once = {" ".join(record["text"].split()): record for record in reversed(records)}
    records = [*reversed(once.values())]
    prose = [record for record in records if not record["code"]]
    records += [*make_junk(prose), *make_copies(prose)]
    join(records, build(records))
    if options.keep:
        rows = ({**r, "original": r["original"] and r["original"]["id"]} for r in records)
        options.keep.write_text("".join(json.dumps(r, default=str) + "\n" for r in rows))
    report_all(records, every=options.all)


def half_of(group: str) -> str:
    """Return the half of a language; all regions and scripts of a language have the same half."""
    name = re.split(r"[-_@]", group)[0]
    return "second" if hashlib.sha256(name.encode()).digest()[0] % 2 else "first"


def read(folder: Path, *, code: bool) -> Iterator[Record]:
    for document in read_package(folder, code=code):
        yield {
            "id": f"{folder.name}/{document.group}/{document.name}",
            "text": document.text,
            "group": document.group,
            "package": folder.name,
            "code": code,
            "kind": "",
            "edit": "",
            "of": "",
        }


def make_junk(records: list[Record]) -> Iterator[Record]:
    chance = random.Random(17)
    for number, record in enumerate(records[::EACH]):
        kind = list(JUNK)[number % len(JUNK)]
        text = JUNK[kind](record["text"], chance)
        # Skip mojibake of text that is nearly all ASCII, in which almost nothing is changed.
        if "mojibake" not in kind or len(text) > 1.02 * len(record["text"]):
            name = f"{record['id']}#{kind}"
            yield {**record, "id": name, "text": text, "kind": kind, "of": record["id"]}


def make_copies(records: list[Record]) -> Iterator[Record]:
    chance = random.Random(18)
    long = [record for record in records if len(record["text"]) >= LEAST_COPY]
    for number, record in enumerate(long[::EACH_COPY]):
        edit = list(EDITS)[number % len(EDITS)]
        text = EDITS[edit](record["text"], chance)
        name = f"{record['id']}#{edit}"
        yield {**record, "id": name, "text": text, "edit": edit, "of": record["id"]}


def words_of(text: str) -> list[str]:
    """Return the words of ``text``; in scripts without spaces, pieces of two characters."""
    words = []
    for word in text.split():
        if sum(bool(is_unspaced(np.uint32(ord(c)))) for c in word) > len(word) / 2:
            words += [word[at : at + 2] for at in range(0, len(word), 2)]
        else:
            words.append(word)
    return words


def shuffle_words(text: str, chance: random.Random) -> str:
    words = words_of(text)
    chance.shuffle(words)
    return ("" if len(words) > 2 * len(text.split()) else " ").join(words)


def shuffle_characters(text: str, chance: random.Random) -> str:
    return " ".join("".join(chance.sample(word, len(word))) for word in text.split(" "))


def repeat_line(text: str, chance: random.Random) -> str:
    return "\n".join([max(text.splitlines()[:20], key=len)] * chance.randint(15, 40))


def misread(text: str, _: random.Random) -> str:
    """Return the UTF-8 bytes of ``text`` decoded as Latin-1, which garbles all but ASCII."""
    return text.encode().decode("latin-1")


def misread_windows(text: str, _: random.Random) -> str:
    """Return the UTF-8 bytes of ``text`` decoded as Windows-1252, which garbles all but ASCII."""
    return text.encode().decode("cp1252", "replace")


def list_words(text: str, chance: random.Random) -> str:
    """Return random words of ``text`` as in a menu, one to three per line."""
    words = words_of(text)
    lines = [" ".join(chance.choices(words, k=chance.randint(1, 3))) for _ in range(80)]
    return "\n".join(line[:1].upper() + line[1:] for line in lines)


def list_numbers(text: str, chance: random.Random) -> str:
    """Return a table of random numbers, with the beginning of ``text`` as its heading."""
    rows = ("\t".join(str(chance.randint(0, 99_999)) for _ in range(6)) for _ in range(40))
    return "\n".join([text[:60].replace("\n", " "), *rows])


def repeat_sentences(text: str, chance: random.Random) -> str:
    """Return five paragraphs that consist of the same few sentences in random orders."""
    ends = "(?<=[.!?:;\u0964\u3002\u061f\u06d4\u0f0d\u104b\u1362\u17d4])\\s*"
    sentences = [s for s in re.split(ends, " ".join(text.split())) if len(s) > 20]
    chosen = chance.sample(sentences, min(5, len(sentences))) or [text[:100]]
    return "\n\n".join(" ".join(chance.sample(chosen, len(chosen))) for _ in range(5))


def repeat_words(text: str, chance: random.Random) -> str:
    """Return lines of a few repeated words, as pages made for search engines have."""
    words = [word for word in set(words_of(text)) if len(word) > 1]
    chosen = chance.sample(sorted(words), min(12, len(words)))
    return "\n".join(" ".join(chance.choices(chosen, k=14)) + "." for _ in range(15))


JUNK: dict[str, Callable[[str, random.Random], str]] = {
    "shuffled words": shuffle_words,
    "shuffled characters": shuffle_characters,
    "repeated line": repeat_line,
    "mojibake": misread,
    "list of words": list_words,
    "table of numbers": list_numbers,
    "repeated sentences": repeat_sentences,
    "mojibake (Windows)": misread_windows,
    "repeated words": repeat_words,
}


def change_words(text: str, chance: random.Random) -> str:
    """Replace one word in 40 by another word of the text.

    In scripts without spaces, replace characters instead of words.
    """
    characters = sum(bool(is_unspaced(np.uint32(ord(c)))) for c in text)
    pieces = list(text) if characters > len(text) / 4 else re.split(r"(\s+)", text)
    others = [piece for piece in pieces if piece.strip()]
    for at in range(chance.randint(0, 39), len(others), 40):
        others[at] = chance.choice(others)
    following = iter(others)
    return "".join(next(following) if piece.strip() else piece for piece in pieces)


def decompose(text: str, _: random.Random) -> str:
    return unicodedata.normalize("NFD", text)


def widen(text: str, _: random.Random) -> str:
    """Replace ASCII letters and digits by their full-width forms."""
    return "".join(chr(ord(c) + 0xFEE0) if c.isascii() and c.isalnum() else c for c in text)


def rewrap(text: str, chance: random.Random) -> str:
    """Break lines after every few words, in other places than before."""
    words, width = text.split(" "), chance.randint(5, 12)
    lines = [" ".join(words[at : at + width]) for at in range(0, len(words), width)]
    return "\n".join(lines)


def without_marks(text: str, _: random.Random) -> str:
    """Remove punctuation, and convert to capitals if the script has capitals."""
    return re.sub("[.,;:!?\u3002\u3001\uff0c\u0964\u1362]", "", text).upper()


def wrap_in_notice(text: str, _: random.Random) -> str:
    return f"Home > Articles\n\n{text}\n\nCopyright 2024. Powered by WordPress"


EDITS: dict[str, Callable[[str, random.Random], str]] = {
    "one in 40": change_words,
    "NFD": decompose,
    "full-width": widen,
    "wrapped elsewhere": rewrap,
    "no punctuation": without_marks,
    "notice around": wrap_in_notice,
}


def build(records: list[Record]) -> list[Record]:
    """Build ``records`` with ``climb build``, and return the rows of the catalogue."""
    with tempfile.TemporaryDirectory() as folder:
        corpus, out = Path(folder) / "corpus.jsonl", Path(folder) / "shards"
        lines = (json.dumps({k: r[k] for k in ("id", "text", "group")}) for r in records)
        corpus.write_text("\n".join(lines) + "\n")
        climb = Path(sys.executable).with_name("climb")
        arguments = ["--clusters", "12", "--label", "group", "--out", str(out)]
        command = [str(climb), "build", str(corpus), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        parts = sorted(out.glob("documents/part-*.parquet"))
        return [row for part in parts for row in pq.read_table(part).to_pylist()]


def join(records: list[Record], rows: list[Record]) -> None:
    """Add to each record its row of the catalogue as ``outcome``, and keys derived from it.

    ``original`` is the record of which the build calls it a copy, or None; ``kin`` is the id of the
    document it was made from if it is a planted copy, else its own id; ``stays`` is whether it is
    in a shard; ``lives`` is whether it or a copy of it is; ``found`` is whether it or its planted
    copy is left out as a copy.
    """
    outcomes = {row["id"]: row for row in rows}
    by_id = {record["id"]: record for record in records}
    for record in records:
        outcome = record["outcome"] = outcomes[record["id"]]
        original = None if outcome["why"] == EXACT else outcome["copy_of"]
        record["original"] = None if original is None else by_id[rows[original]["id"]]
        record["stays"] = outcome["cluster"] is not None
        record["kin"] = record["of"] if record["edit"] else record["id"]
    staying = {record["kin"] for record in records if record["stays"] and not record["kind"]}
    called = {record["kin"] for record in records if outcomes[record["id"]]["why"] in COPIES}
    for record in records:
        original = record["original"]
        record["lives"] = record["kin"] in staying or (original is not None and original["stays"])
        record["found"] = record["kin"] in called


def report_all(records: list[Record], *, every: bool) -> None:
    groups = defaultdict(list)
    for record in records:
        kind = "programs" if record["code"] else "prose"
        groups[f"all {kind}"].append(record)
        groups[f"package {record['package']}"].append(record)
        groups[f"language {record['group']}"].append(record)
    for name, members in groups.items():
        if every or not name.startswith("language") or is_bad(members):
            report_group(name, members)
    for kind in JUNK:
        report_share(f"low dropped: {kind}", [not r["stays"] for r in records if r["kind"] == kind])
    for edit in EDITS:
        report_share(f"copies found: {edit}", [r["found"] for r in records if r["edit"] == edit])
    called = [r for r in records if r["original"]]
    right = (r["kin"] == r["original"]["kin"] or alike(r, r["original"]) >= ALIKE for r in called)
    report_share("precision of copies", list(right))
    lost = defaultdict(list)
    for record in records:
        if not record["kind"] and not record["edit"] and not record["lives"]:
            lost[record["outcome"]["why"]].append(record)
    for why, members in lost.items():
        report(f"  ok lost: {why}", len(members), "documents", "")


def is_bad(records: list[Record]) -> bool:
    """Return whether the records of a language miss a bar."""
    ok, low, copies = outcomes_of(records)
    return bool(np.mean(ok) < 0.97 or np.mean(low or [1]) < 0.7 or np.mean(copies or [1]) < 0.95)


def outcomes_of(records: list[Record]) -> tuple[list[bool], list[bool], list[bool]]:
    """Return, as three lists, whether good documents are kept, junk dropped, and copies found."""
    good = [r["lives"] for r in records if not r["kind"] and not r["edit"]]
    low = [not r["stays"] for r in records if r["kind"]]
    return good, low, [r["found"] for r in records if r["edit"]]


def report_group(name: str, records: list[Record]) -> None:
    good, low, copies = outcomes_of(records)
    note = f"low dropped {share(low)}; copies {share(copies)}; ok of {len(good):,}"
    report(f"ok kept, {name}", float(np.mean(good)), "", note)


def share(values: list[bool]) -> str:
    return f"{np.mean(values):.3f} of {len(values):,}" if values else "none"


def report_share(name: str, values: Iterable[bool]) -> None:
    values = list(values)
    report(name, float(np.mean(values or [1.0])), "", f"of {len(values):,}")


if __name__ == "__main__":
    main()
