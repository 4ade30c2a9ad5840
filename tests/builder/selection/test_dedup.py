"""Duplicates: the first of exact ones stays, and the best of near ones."""

import unicodedata
from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.corpus.text_hashes import hash_texts
from climbstream.builder.selection import dedup
from climbstream.builder.selection.dedup import find_repeated, near_originals, repeated, sign_texts


@given(st.lists(st.sampled_from("abcdefgh")))
def test_the_first_of_each_stays(texts):
    again = repeated(hash_texts(texts))
    assert again.tolist() == [text in texts[:i] for i, text in enumerate(texts)]


@given(st.lists(st.lists(st.sampled_from("abcdefghijklmnop"))), st.integers(1, 20))
def test_it_makes_no_difference_how_many_are_compared_at_a_time(parts, rows):
    hashes = [hash_texts(part) for part in parts]
    total = sum(map(len, parts))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(dedup, "_ROWS", rows)
        found = find_repeated(hashes, total)
    whole = np.concatenate([np.empty((0, 2), np.uint64), *hashes])
    np.testing.assert_array_equal(found, repeated(whole))


@given(st.lists(st.text(), unique_by=lambda text: " ".join(text.split())))
def test_different_texts_have_different_hashes(texts):
    hashes = hash_texts(texts)
    assert (hashes.shape, hashes.dtype) == ((len(texts), 2), np.uint64)
    assert len({tuple(row) for row in hashes.tolist()}) == len(texts)


@given(st.lists(st.text("abc", min_size=1), min_size=1), st.sampled_from([" ", "\n\n", "\u2003 "]))
def test_white_space_makes_no_difference(words, space):
    one, other = hash_texts([" ".join(words), f"{space}{space.join(words)}{space}"]).tolist()
    assert one == other


def test_capitals_make_a_difference():
    assert not repeated(hash_texts(["The text.", "the text."])).any()


@dataclass
class Signed:
    """A partition that holds signatures alone."""

    signatures: np.ndarray

    def __len__(self):
        return self.signatures.shape[1]

    def read(self, _, *, mapped):  # noqa: ARG002
        """Return the signatures."""
        return self.signatures


def originals(texts, worth=None, least=0.8, eligible=None, size=3):
    """Find near originals in partitions of ``size``."""
    partitions = [Signed(sign_texts(texts[i : i + size])) for i in range(0, len(texts), size)]
    worth = np.zeros(len(texts), np.float32) if worth is None else np.array(worth, np.float32)
    eligible = np.ones(len(texts), bool) if eligible is None else np.array(eligible)
    return near_originals(partitions, eligible, worth, least).tolist()


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
