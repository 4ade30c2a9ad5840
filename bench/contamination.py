"""Measure recall, precision and cost of the search for leaked questions in documents.

``--corpus FOLDER`` is a folder of English documents (``corpus/*.jsonl.zst``, with ``text`` and
``source``) and of tasks (``tasks/*.jsonl.zst``). ``--languages FOLDER`` is a folder with
``text.jsonl.zst``, whose documents have ``text`` and ``lang``. The bench writes questions into some
documents, called hosts: it plants them. Some questions are planted with their answers. `plant`
writes a question in one of these ways:

* verbatim;
* re-wrapped: in lines of other lengths, which may begin with a mark of quotation;
* re-cased: in capitals, in lower case, or with a capital for each word;
* with other punctuation: without any, or with other quotes, dashes and stops;
* changed: one word in ten is replaced (one character in ten in scripts without spaces).

Other questions of the same tasks, which are not searched for, are planted verbatim, to count wrong
findings. English questions are those of the tasks. In other languages, passages of 6 to 60 words
are used as questions; they are taken from documents that are not hosts. If a passage is in a host
before anything is planted, the passage is left out.

A finding is right if it shares 13 consecutive words with the question that was planted in the
document, or all words of a shorter question. The search was tuned on one half of the domains and
languages; the other half is reported separately.
"""

import argparse
import io
import json
import math
import os
import random
import re
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import zstandard
from measure import report

from climbstream.builder.contamination.index import ItemIndex
from climbstream.builder.contamination.tasks import Item, Task, read_tasks
from climbstream.builder.contamination.word_hashes import hash_words

SHARED = Path(__file__).parents[2] / "shared"
TUNED = {"en", "de", "ru", "zh", "ar", "hi", "th"}
UNSPACED = {"zh", "ja", "th"}
KINDS = ("verbatim", "re-wrapped", "re-cased", "other punctuation", "one word in ten changed")
BARS = dict(zip(KINDS, (0.95, 0.8, 0.8, 0.8, 0.6), strict=True))
OTHER = "another question"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--corpus", type=Path, default=SHARED / "corpus")
    parser.add_argument("--languages", type=Path, default=SHARED / "languages")
    parser.add_argument("--documents", type=int, default=6_000, help="English ones")
    parser.add_argument("--show", type=int, default=0, help="findings that are wrong, so many")
    parser.add_argument("--tune", action="store_true", help="only what is tuned on")
    options, _ = parser.parse_known_args()
    if not (options.corpus / "tasks").is_dir() or not options.languages.is_dir():
        print("no corpus: name folders with --corpus and --languages", file=sys.stderr)
        return
    rng = random.Random(17)
    halves: dict[bool, list[Any]] = {True: [], False: []}
    for hosts, items, language, tuned in [
        *english(options.corpus, options.documents, rng),
        *in_languages(options.languages, rng),
    ]:
        halves[tuned].append((hosts, items, language))
    for tuned, groups in halves.items():
        if options.tune and not tuned:
            continue
        measure_half("tuned on" if tuned else "the rest", groups, rng, options.show)
    measure_cost(options.corpus)


def records(path: Path) -> Iterator[dict[str, Any]]:
    with path.open("rb") as file:
        reader = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
        yield from map(json.loads, io.BufferedReader(reader))


def english(corpus: Path, documents: int, rng: random.Random) -> Iterator[Any]:
    """Yield hosts, items, language and whether it is the tuned half, for each of two halves.

    A half has every second domain and every second task.
    """
    hosts = defaultdict(list)
    for path in sorted((corpus / "corpus").glob("*.jsonl.zst"))[:2]:
        for record in records(path):
            hosts[record["source"]].append(record["text"])
    tasks = read_tasks([str(path) for path in sorted((corpus / "tasks").glob("*.jsonl.zst"))])
    for half in (0, 1):
        texts = [text for name in sorted(hosts)[half::2] for text in hosts[name]]
        items = [item for task in tasks[half::2] for item in task.items]
        chosen = rng.sample(texts, min(documents, len(texts)))
        yield chosen, rng.sample(items, 2 * len(chosen) // 3), "en", half == 0


def in_languages(folder: Path, rng: random.Random) -> Iterator[Any]:
    """Yield hosts, passages as items, language and whether it was tuned on, for each language.

    Passages are from documents that are not hosts, and no passage is part of a host.
    """
    texts = defaultdict(list)
    for record in records(folder / "text.jsonl.zst"):
        if record["quality"] == "ok" and record["copy_of"] is None:
            texts[record["lang"]].append(record["text"])
    for mine in texts.values():
        rng.shuffle(mine)
    # Compare with hosts of all languages: text that is not yet translated occurs in several.
    hosts = {name: [t for n, t in enumerate(mine) if n % 3] for name, mine in texts.items()}
    every = [text for some in hosts.values() for text in some]
    whole, runs = plain("\n".join(every)), set().union(*map(thirteens, every))
    for language, mine in sorted(texts.items()):
        passages = [p for text in mine[::3] for p in passages_of(text, language, rng)]
        items = [
            Item(f"{language}-{n}", text)
            for n, text in enumerate(dict.fromkeys(passages))
            if text and plain(text) not in whole and not thirteens(text) & runs
        ]
        yield hosts[language], items, language, language in TUNED


def plain(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))


def passages_of(text: str, language: str, rng: random.Random) -> list[str]:
    """Return a random passage of each third of a text, if the third is long enough for it."""
    unspaced = language in UNSPACED
    words = list(text) if unspaced else text.split()
    third, passages = len(words) // 3, []
    for begin in (0, third, 2 * third):
        length = rng.randint(12, 100) if unspaced else rng.randint(6, 60)
        if length < third:
            start = begin + rng.randrange(third - length)
            part = words[start : start + length]
            passages.append(("" if unspaced else " ").join(part).strip())
    return passages


def plant(text: str, kind: str, others: Sequence[str], rng: random.Random) -> str:
    """Return a question changed as a leak of that ``kind`` is."""
    if kind == "re-wrapped":
        return rewrap(text, rng)
    if kind == "re-cased":
        return rng.choice([text.upper(), text.title(), text.lower()])
    if kind == "other punctuation":
        return repunctuate(text, rng)
    if kind == "one word in ten changed":
        return change(text, others, rng)
    return text


def rewrap(text: str, rng: random.Random) -> str:
    width, mark = rng.randint(20, 70), rng.choice(["", "", "> ", "    ", "* ", "# "])
    words, lines = re.findall(r"\S+", text), [""]
    for word in words:
        # Cut words that are longer than a line: they are from scripts without spaces.
        pieces = [word[n : n + width] for n in range(0, len(word), width)]
        for piece in pieces:
            if len(lines[-1]) + len(piece) > width:
                lines.append("")
            glue = " " if lines[-1] and piece is pieces[0] else ""
            lines[-1] += glue + piece
    return "\n".join(mark + line for line in lines if line)


def repunctuate(text: str, rng: random.Random) -> str:
    if rng.random() < 0.5:
        marks = r"[.,;:!?\"()«»“”\u060c\u061f\u0964\u3001\u3002\uff0c\uff01\uff1f]"
        return re.sub(marks, " ", text)
    table = str.maketrans({".": " …", ",": " \u2013", "?": "?!", '"': "”", ":": " --", "。": "!"})
    return f"“{text.translate(table)}”"


def change(text: str, others: Sequence[str], rng: random.Random) -> str:
    """Return ``text`` with one word in ten, at least one, replaced by a word from ``others``.

    In scripts without spaces, characters are replaced instead of words.
    """
    unspaced = " " not in text or len(text) / len(text.split()) > 20
    parts = list(text) if unspaced else re.split(r"(\s+)", text)
    places = [n for n, part in enumerate(parts) if part.strip()]
    for place in rng.sample(places, max(1, round(len(places) / 10))):
        other = rng.choice(others)
        parts[place] = rng.choice(other) if unspaced else rng.choice(other.split() or ["x"])
    return "".join(parts)


def insert(host: str, leak: str, rng: random.Random) -> str:
    place = rng.randrange(len(host) + 1)
    place = host.find("\n", place) if "\n" in host[place:] else len(host)
    return f"{host[:place]}\n{leak}\n{host[place:]}"


def measure_half(name: str, groups: Sequence[Any], rng: random.Random, show: int) -> None:
    """Plant questions, search for them, and report recall by kind and precision for one half.

    The first ``show`` wrong findings are printed.
    """
    looked_for, documents = [], []
    for hosts, items, language in groups:
        known, unknown = items[: 4 * len(items) // 5], items[4 * len(items) // 5 :]
        looked_for += known
        documents += planted(hosts, known, unknown, language, rng)
    index = ItemIndex.of([Task("planted", tuple(looked_for))])
    grams = [thirteens(item.question) for item in looked_for]
    number_of = {id(item): number for number, item in enumerate(looked_for)}
    found: Counter[Any] = Counter()
    total: Counter[Any] = Counter()
    right = wrong = 0
    for text, item, kind, language in documents:
        matches = index.find(text)
        leaked = thirteens(item.question) if item else set()
        hit = any(leaked & grams[match.item] for match in matches)
        number = number_of.get(id(item))
        if item and number is not None and not index.missing[number]:
            for key in (kind, (kind, "English" if language == "en" else "other languages")):
                total[key] += 1
                found[key] += hit
            if len(hash_words(item.question)[0]) < 13:
                total[kind, "short"] += 1
                found[kind, "short"] += hit
        for match in matches:
            good = bool(leaked & grams[match.item])
            right, wrong = right + good, wrong + (not good)
            if not good and show > 0:
                show -= 1
                words = text.split()[max(0, match.at - 3) : match.at + 30]
                print(f"wrong {match.share:.2f} {kind}: {looked_for[match.item].question[:150]!r}")
                print(f"    in {' '.join(words)[:200]!r}")
    for kind in KINDS:
        parts = ", ".join(
            f"{part} {found[kind, part] / max(total[kind, part], 1):.3f}"
            for part in ("English", "other languages", "short")
        )
        recall = round(found[kind] / max(total[kind], 1), 3)
        note = f"of {total[kind]:,}; {parts}; bar {BARS[kind]:g}"
        report(f"{name}: recall, {kind}", recall, "", note)
    precision = round(right / max(right + wrong, 1), 4)
    report(f"{name}: precision", precision, "", f"of {right + wrong:,} findings; bar 0.99")
    short = int(index.missing.sum())
    report(f"{name}: too short to look for", short, "", f"of {len(looked_for):,} questions")


def thirteens(text: str) -> set[int]:
    """Return a hash of each run of 13 words of a text; of a shorter text, a hash of all words."""
    words = hash_words(text)[0]
    return {hash(words[n : n + 13].tobytes()) for n in range(max(1, len(words) - 12))}


def planted(
    hosts: Sequence[str],
    known: Sequence[Item],
    unknown: Sequence[Item],
    language: str,
    rng: random.Random,
) -> Iterator[tuple[str, Item | None, str, str]]:
    """Yield hosts, each with the planted question (or None), its kind and the language.

    In turn, a host has a question of ``known`` in each of `KINDS`, a question of ``unknown``, and
    no question.
    """
    kinds = [*KINDS, OTHER, ""]
    for number, host in enumerate(hosts):
        kind = kinds[number % len(kinds)]
        if not kind or not known or (kind == OTHER and not unknown):
            yield host, None, "plain", language
            continue
        item = rng.choice(unknown if kind == OTHER else known)
        leak = plant(item.question, kind, hosts, rng)
        # A short question means little without its answer, so it is always planted with it.
        if item.answer and (rng.random() < 0.5 or len(hash_words(item.question)[0]) < 8):
            leak += rng.choice(["\n", " ", "\nAnswer: "]) + plant(item.answer, kind, hosts, rng)
        yield insert(host, leak, rng), item, kind, language


def measure_cost(corpus: Path) -> None:
    """Report the time to index tasks and to search a document, and the growth of memory."""
    tasks = read_tasks([str(path) for path in sorted((corpus / "tasks").glob("*.jsonl.zst"))])
    begin = time.process_time()
    index = ItemIndex.of(tasks)
    seconds = round(time.process_time() - begin, 1)
    report("an index of tasks", seconds, "CPU-seconds", f"{len(index.ids):,} questions")
    paths = sorted((corpus / "corpus").glob("*.jsonl.zst"))
    text = "\n".join(record["text"] for record in records(paths[0]))
    documents = [text[n : n + 3_000] for n in range(0, len(text) - 3_000, 3_000)][:4_000]
    groups = [documents[n : n + 100] for n in range(0, len(documents), 100)]
    best = [math.inf] * len(groups)
    for _ in range(9):
        for number, group in enumerate(groups):
            begin = time.process_time()
            index.find_all(group)
            best[number] = min(best[number], time.process_time() - begin)
    cost = round(sum(best) / len(documents) * 1e6, 1)
    # Other processes may slow a group down in some rounds, but hardly in all nine.
    note = f"best of 9 for each 100 of {len(documents):,} documents of 3,000 characters; bar 34"
    report("a document", cost, "µs of one core", note)
    before = resident()
    count = 0
    for path in paths[1:4]:
        for record in records(path):
            index.find(record["text"])
            count += 1
    more = round((resident() - before) / 2**20, 1)
    report("memory that is held after more documents", more, "MiB", f"{count:,} documents")


def resident() -> int:
    """Return the resident memory of this process, in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGESIZE")


if __name__ == "__main__":
    main()
