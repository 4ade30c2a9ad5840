"""Near copies: the best one stays, whatever blocks a corpus is cut into."""

import os
import random
import subprocess
import sys
import tempfile
import unicodedata
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from serial_pool import SerialPool

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.selection import exchange, near
from climbstream.builder.selection.dedup import (
    BANDS,
    SIGNATURE,
    SPAN,
    least_agreement,
    sign_texts,
)
from climbstream.builder.selection.exchange import cut_blocks
from climbstream.builder.selection.near import find_near
from climbstream.builder.selection.stages import original_worth


@pytest.fixture(autouse=True)
def _unsynced(monkeypatch):
    """Leave out the waits for the disk: there are thousands of small files."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


@dataclass(frozen=True)
class Signed:
    """A partition that holds signatures and worth alone."""

    signatures: np.ndarray
    worth: np.ndarray
    original: list = field(default_factory=list)

    def read(self, _, *, mapped):  # noqa: ARG002
        """Return the signatures."""
        return self.signatures

    def write(self, _, array):
        """Keep what was found."""
        self.original[:] = array.tolist()


def worth_of(partition, _number):
    return partition.worth


def cut(signatures, worth, size):
    """Cut documents into partitions of ``size``."""
    starts = range(0, len(worth), size)
    return [Signed(signatures[:, i : i + size], worth[i : i + size]) for i in starts]


def search(signatures, worth, least=0.8, size=3, blocks=1):
    """Find originals in partitions of ``size``, cut into ``blocks``."""
    partitions = cut(signatures, worth, size)
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        patch.setattr(exchange, "FEWEST", -(-len(worth) // blocks))
        parts = cut_blocks(partitions, [len(partition.worth) for partition in partitions])
        find_near(SerialPool(), parts, Path(folder) / "near", worth_of, least)
    return [number for partition in partitions for number in partition.original]


def originals(texts, worth=None, least=0.8, eligible=None, **how):
    """Find near originals of texts."""
    worth = np.zeros(len(texts), np.float32) if worth is None else np.array(worth, np.float32)
    if eligible is not None:
        worth[~np.array(eligible)] = -np.inf
    return search(sign_texts(texts), worth, least, **how)


def prose(seed, words=120):
    """Return words drawn at random."""
    numbers = np.random.default_rng(seed).integers(0, 5000, words)
    return [f"word{chr(97 + n % 26)}{n}" for n in numbers.tolist()]


def test_other_capitals_marks_and_a_few_words_make_a_near_copy():
    words = prose(0)
    texts = [" ".join(words), ", ".join(words).upper() + "!", " ".join([*words[:-4], "and", "so"])]
    assert originals([*texts, " ".join(prose(1))]) == [-1, 0, 0, -1]


JAPANESE = (
    "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした所で"
    "ニャーニャー泣いていた事だけは記憶している。吾輩はここで始めて人間というものを見た。"
)
VIETNAMESE = (
    "Trăm năm trong cõi người ta, chữ tài chữ mệnh khéo là ghét nhau, trải qua một cuộc bể dâu 12"
)


def test_characters_that_differ_in_code_within_text_without_spaces_leave_it_a_near_copy():
    names = "useState createContext dispatch reducer initialState onClick render component".split()
    parts = [
        f"{names[i % 8]}を{names[i * 5 % 7]}に渡すと{JAPANESE[i * 3 : i * 3 + 9]}"
        for i in range(40)
    ]
    text = "".join(parts)
    copy = "".join("q" if i % 40 == 7 else character for i, character in enumerate(text))
    assert originals([text, copy]) == [-1, 0]


def test_a_long_text_without_spaces_that_says_much_again_stays_a_near_copy():
    sentences = [JAPANESE[i % 60 : i % 60 + 24] for i in range(0, 300, 7)]
    text = "".join(sentences * 3)
    changed = random.Random(5).sample(range(len(text)), len(text) // 40)
    letters = random.Random(6)
    copy = list(text)
    for at in changed:
        copy[at] = letters.choice("山川空海花鳥風月雪雨火木金土石田町村道橋")
    assert originals([text, "".join(copy)]) == [-1, 0]


@pytest.mark.parametrize(
    ("text", "copy"),
    [
        (JAPANESE, JAPANESE.replace("。名", "、名").replace("猫", "犬")),
        (VIETNAMESE, unicodedata.normalize("NFD", VIETNAMESE).upper()),
        (VIETNAMESE, VIETNAMESE.replace("12", "１２")),
    ],
)
def test_a_copy_is_near_in_every_script_and_form_of_writing(text, copy):
    assert originals([text, copy]) == [-1, 0]


def test_the_one_of_highest_worth_is_the_original():
    text = " ".join(prose(0))
    assert originals([text, text, text, text], worth=[1, 3, 2, 3]) == [1, -1, 1, 1]


def test_what_is_not_eligible_takes_no_part():
    text = " ".join(prose(0))
    assert originals([text, text, text], eligible=[False, True, True]) == [-1, -1, 1]


def test_short_texts_and_texts_without_words_have_no_near_copies():
    assert originals(["", "!", "!", "one two three", "one two three"]) == [-1] * 5


@pytest.mark.parametrize(("kept", "found"), [(0.95, 0), (0.6, -1)])
def test_copies_are_alike_by_what_was_asked(kept, found):
    words = prose(2, 400)
    other = [*words[: int(kept * 400)], *prose(3, 400 - int(kept * 400))]
    assert originals([" ".join(words), " ".join(other)]) == [-1, found]


def test_a_chain_of_small_changes_is_no_copy_of_its_start():
    words = prose(4, 300)
    texts = [" ".join([*words[20 * step :], *prose(5 + step, 20 * step)]) for step in range(6)]
    found = originals(texts)
    for number, original in enumerate(found):
        if original >= 0:
            assert found[original] == -1
            assert jaccard(texts[number], texts[original]) > 0.7


def jaccard(one, other):
    """Compare sets of three words in a row."""
    sets = []
    for text in (one, other):
        words = text.split()
        sets.append({*zip(words, words[1:], words[2:], strict=False)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


def expected_originals(signatures, worth, least):
    """Find originals one document after the other, as the module says it."""
    count = len(worth)
    original = [-1] * count
    bands = signatures.reshape(BANDS, SPAN, count)
    for band in bands:
        groups = {}
        for i in range(count):
            key = band[:, i].tobytes()
            if original[i] < 0 and worth[i] > -np.inf and key != b"\xff" * SPAN:
                groups.setdefault(key, []).append(i)
        for group in groups.values():
            best = max(group, key=lambda i: (worth[i], -i))
            for i in group:
                if i != best and (signatures[:, i] == signatures[:, best]).mean() >= least:
                    original[i] = best
    last = [*original]
    for i in range(count):
        while last[i] >= 0 and original[last[i]] >= 0:
            last[i] = original[last[i]]
    return [
        j if j >= 0 and (signatures[:, i] == signatures[:, j]).mean() >= least else -1
        for i, j in enumerate(last)
    ]


def planted(rng, count, families, changed, worths):
    """Make signatures of which ``families`` are copied, some of their bytes ``changed``."""
    signatures = rng.integers(0, 256, (SIGNATURE, count), dtype=np.uint8)
    source = rng.integers(0, min(max(families, 1), count), count)
    copies = rng.random(count) < 0.7
    noise = rng.random((SIGNATURE, count)) < rng.uniform(0, changed, count)
    signatures = np.where(copies & ~noise, signatures[:, source], signatures)
    signatures[:, rng.random(count) < 0.05] = 0xFF
    worth = rng.integers(0, worths, count).astype(np.float32)
    worth[rng.random(count) < 0.1] = -np.inf
    return signatures, worth


@settings(max_examples=15, deadline=None)
@given(
    st.integers(0, 2**32),
    st.integers(1, 90),
    st.integers(0, 12),
    st.floats(0, 0.6),
    st.integers(1, 4),
    st.sampled_from([0.5, 0.8, 1.0]),
    st.sampled_from([1, 3, 17]),
)
def test_the_same_documents_are_copies_in_any_number_of_blocks(
    seed, count, families, changed, worths, least, blocks
):
    signatures, worth = planted(np.random.default_rng(seed), count, families, changed, worths)
    expected = expected_originals(signatures, worth, least)
    assert search(signatures, worth, least, blocks=blocks) == expected


def test_a_chain_of_copies_is_followed_to_its_end_across_blocks():
    rng = np.random.default_rng(1)
    signatures = np.repeat(rng.integers(0, 255, (SIGNATURE, 1), dtype=np.uint8), 24, axis=1)
    for i in range(24):  # each pair shares the bands from 24 - i on alone, so links form one by one
        signatures[: 4 * min(24 - i, 6), i] = rng.integers(0, 255, 4 * min(24 - i, 6))
    worth = np.arange(24, dtype=np.float32)
    expected = expected_originals(signatures, worth, 0.5)
    assert max(expected) == 23
    assert search(signatures, worth, 0.5, size=1, blocks=8) == expected


def test_a_group_of_all_documents_takes_one_row_a_block(tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "FEWEST", 250)
    signatures = np.full((SIGNATURE, 1000), 7, np.uint8)
    partitions = cut(signatures, np.zeros(1000, np.float32), 50)
    blocks = cut_blocks(partitions, [50] * 20)
    rows = []
    monkeypatch.setattr(
        near, "match", lambda task, match=near.match: rows.append(heads(task)) or match(task)
    )
    find_near(SerialPool(), blocks, tmp_path / "near", worth_of, 0.8)
    assert max(rows) == len(blocks) == 4
    assert [n for partition in partitions for n in partition.original] == [-1] + [0] * 999


def heads(task):
    """Count the rows that come together in one task."""
    whole = exchange.read_whole_part(
        task.paths("heads", task.step), task.number, task.count, near._HEAD
    )
    return len(whole)


@pytest.fixture
def partitions(tmp_path):
    """Partitions of ten documents on disk, with planted copies."""
    rng = np.random.default_rng(5)
    signatures, _ = planted(rng, 2000, 40, 0.3, 3)
    partitions = [Partition(tmp_path / "units" / f"00000-{number:05d}") for number in range(200)]
    for number, partition in enumerate(partitions):
        partition.write("signatures", signatures[:, 10 * number : 10 * number + 10])
        partition.write("scores", rng.integers(0, 5, (10, 4)).astype(np.float32))
        partition.write("sizes", rng.integers(1, 3, 10))
        partition.write("why", (rng.random(10) < 0.1).astype(np.uint8))
    return partitions


worth_of_partition = partial(original_worth, before=0)


def expected_of(partitions):
    """Find originals as a corpus of one block."""
    signatures = np.concatenate([p.read("signatures") for p in partitions], axis=1)
    return search(signatures, np.concatenate([worth_of_partition(p, 0) for p in partitions]))


def found_in(partitions):
    return np.concatenate([partition.read("original") for partition in partitions]).tolist()


FEW_FILES = """
import resource, sys
from functools import partial
from pathlib import Path
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.selection import exchange
from climbstream.builder.selection.near import find_near
from climbstream.builder.selection.stages import original_worth
from climbstream.loader.core.engines.local import LocalEngine

units, near, documents = sys.argv[1:]
exchange.FEWEST = int(documents)
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
partitions = [Partition(folder) for folder in sorted(Path(units).iterdir())]
blocks = exchange.cut_blocks(partitions, [10] * len(partitions))
assert len(blocks) == 2000 // exchange.FEWEST
with LocalEngine(2) as engine:
    find_near(engine, blocks, Path(near), partial(original_worth, before=0), 0.8)
"""


@pytest.mark.parametrize("documents", ["1000", "250"])
def test_processes_that_may_open_few_files_find_the_same(partitions, documents, tmp_path):
    # A process of its own: the files that this one holds open are no part of the claim.
    near_folder = tmp_path / "near"
    script = [sys.executable, "-c", FEW_FILES, tmp_path / "units", near_folder, documents]
    subprocess.run(script, check=True, timeout=300)
    assert found_in(partitions) == expected_of(partitions)
    assert [path.name for path in near_folder.iterdir()] == ["done"]


class StoppedError(Exception):
    """Work ends here."""


class StoppingPool(SerialPool):
    """Runs a number of tasks in this process, then stops in the middle of one."""

    def __init__(self, tasks):
        self.left = tasks

    def run(self, function, tasks, *_):
        """Give (task, result) for each task, until the last."""
        for task in tasks:
            self.left -= 1
            if self.left < 0:
                raise StoppedError
            yield task, function(task)


def test_a_search_that_is_stopped_again_and_again_ends_with_the_same(
    partitions, tmp_path, monkeypatch
):
    monkeypatch.setattr(exchange, "FEWEST", 500)
    blocks = cut_blocks(partitions, [10] * len(partitions))
    rng, stops = random.Random(0), 0
    while not (tmp_path / "near" / "done").exists():
        engine = StoppingPool(rng.randrange(100))
        try:
            find_near(engine, blocks, tmp_path / "near", worth_of_partition, 0.8)
        except StoppedError:
            stops += 1
    assert stops > 4
    assert found_in(partitions) == expected_of(partitions)


@pytest.mark.parametrize("alike", [0.5, 0.8, 0.95, 1.0])
def test_a_copy_at_the_bar_is_found_five_times_of_six_and_a_bar_of_1_is_exact(alike):
    least = least_agreement(alike)
    found = scipy.stats.binom.sf(np.ceil(least * SIGNATURE) - 1, SIGNATURE, alike)
    assert found == 1 if alike == 1 else 0.8 < found < 0.95
    assert (least == 1) == (alike == 1)
