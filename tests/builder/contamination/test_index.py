"""Tests of the index of items: what it finds in a text, and what it does not."""

import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from climbstream.builder.contamination.index import ItemIndex
from climbstream.builder.contamination.tasks import Item, Task
from climbstream.builder.contamination.word_hashes import hash_words
from climbstream.builder.features.words import UNSPACED, code_points, find_words

QUESTION = (
    "A farmer near the old mill keeps seven goats, four geese and a lame donkey; each spring she "
    "sells two kids at the market in town. How much does she earn when a kid brings ninety coins?"
)
ANSWER = "One hundred and eighty coins"
SHORT = "Which metal melts in a warm hand?"
TEMPLATE = "Which of the following statements is true?"
CHINESE = "小明昨天在河边的老磨坊看见七只山羊和四只鹅，他想知道农夫每年春天能卖掉多少只小羊。"
AROUND = (
    "The harbour was quiet that morning, and nobody asked where the boats had gone. ",
    " Later they went home, told the story to the others, and forgot about it by the evening.",
)


def index_of(*items: Item) -> ItemIndex:
    return ItemIndex.of([Task("task", items)])


def changed(text: str, every: int) -> str:
    words = text.split()
    return " ".join(f"other{n}" if n % every == every - 1 else w for n, w in enumerate(words))


WAYS = {
    "verbatim": lambda text: text,
    "in lines of other lengths": lambda text: text.replace(" ", "\n> "),
    "in capitals": str.upper,
    "without punctuation": lambda text: text.replace(",", "").replace(";", "").replace(".", ""),
    "with other quotes and dashes": lambda text: f"“{text.replace(',', ' –')}”",
    "with every tenth word changed": lambda text: changed(text, 10),
    "with a word put in": lambda text: text.replace("goats", "brown hairy goats"),
    "with words left out": lambda text: text.replace("near the old mill ", ""),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_question_is_found_however_it_was_written(way):
    (match,) = index_of(Item("q", QUESTION, ANSWER)).find(WAYS[way](QUESTION).join(AROUND))
    assert match.item == 0
    assert match.share > 0.8
    assert not match.answer


def test_a_text_without_the_question_has_no_findings():
    assert not index_of(Item("q", QUESTION)).find("".join(AROUND))


def test_a_part_of_a_question_is_not_the_question():
    words = QUESTION.split()
    assert not index_of(Item("q", QUESTION)).find(" ".join(words[: len(words) // 2]).join(AROUND))


def test_another_question_of_the_same_template_is_not_the_question():
    items = [
        Item(str(n), f"Which of these animals is known best for its {n}x{n}?") for n in range(40)
    ]
    index = index_of(*items)
    assert not index.find("Which of these animals is known best for its long teeth?".join(AROUND))
    assert [match.item for match in index.find(items[7].question.join(AROUND))] == [7]


def test_an_exercise_with_other_numbers_is_another_exercise():
    index = index_of(
        Item("q", "In the equation |x-4| - 10 = 2, what is the product of all values of x?")
    )
    assert index.find("In the equation $|x - 4| -10 = 2$ what is the product of all values of $x$?")
    assert not index.find("In the equation |x-7| - 3 = -2, what is the product of all values of x?")


def test_rare_words_alone_do_not_make_a_question():
    items = [Item(str(n), f"To do thing{n} of item{n}, you can take the") for n in range(60)]
    index = index_of(*items)
    assert not index.find("They saw thing7 of item7 by the sea.".join(AROUND))
    assert index.find("To do thing7 of item7, you can take the".join(AROUND))


def test_the_answer_is_told_apart_from_the_question():
    index = index_of(Item("q", QUESTION, ANSWER))
    (match,) = index.find(f"{QUESTION}\nA) None B) {ANSWER.upper()}".join(AROUND))
    assert match.answer
    assert not index.find(ANSWER.join(AROUND))


def test_a_question_of_five_to_seven_words_counts_with_its_answer_and_may_have_one_other_word():
    index = index_of(Item("q", SHORT, "gallium"))
    assert not index.find(SHORT.join(AROUND))
    assert index.find(f"{SHORT} Gallium does.".join(AROUND))
    assert index.find("Which metal melts in a cold hand? Gallium does.".join(AROUND))
    assert not index.find("Which metal melts in a cold hand? Mercury does.".join(AROUND))
    assert not index.find("Which metal melts in a cold oven? Gallium does.".join(AROUND))


@pytest.mark.parametrize(
    "question",
    [
        "Why did the lame donkey leave the mill?",
        "How long do newborn foals sleep in a quiet stable at night?",
        "Почему хромой осёл не захотел вернуться на мельницу?",
        "农夫为什么不想回到河边的老磨坊去",
    ],
)
def test_a_short_question_is_found_whichever_of_its_words_is_another(question):
    index = index_of(Item("q", question))
    words = list(question) if " " not in question else question.split()
    for place in range(len(words)):
        other = [*words]
        other[place] = "x"
        text = ("" if " " not in question else " ").join(other)
        assert index.find(text.join(AROUND)), text


def test_a_short_question_with_another_number_is_another_question():
    index = index_of(Item("q", "How many goats did the farmer sell in 1912?", "seven goats"))
    text = "How many goats did the farmer sell in 1913? She sold seven goats."
    assert not index.find(text.join(AROUND))


def test_a_question_that_differs_in_a_word_is_not_found_where_the_other_stands_whole():
    index = index_of(
        Item("ears", "To make the monkeys ears on the monkey cupcake use chocolate"),
        Item("mouth", "To make the monkeys mouth on the monkey cupcake use chocolate"),
    )
    for item, noun in enumerate(("ears", "mouth")):
        text = f"To make the monkeys {noun} on the monkey cupcake use chocolate"
        assert [match.item for match in index.find(text.join(AROUND))] == [item]


def test_an_index_of_an_earlier_version_finds_what_it_found(tmp_path):
    index_of(Item("q", QUESTION), Item("r", SHORT)).save(tmp_path / "new.npz")
    with np.load(tmp_path / "new.npz") as file:
        former = {k: v for k, v in file.items() if k not in ("short_bits", "evidence", "proof")}
    np.savez_compressed(tmp_path / "old.npz", **former)
    assert ItemIndex.load(tmp_path / "old.npz").find(QUESTION.join(AROUND))


def test_a_short_text_without_an_answer_counts_whole():
    index = index_of(Item("q", SHORT))
    assert index.find(SHORT.join(AROUND))
    assert not index.find("Which metal melts in a hot hand?".join(AROUND))


def test_what_is_too_short_is_said_to_be_and_never_found():
    index = index_of(Item("q", "Who was she?"), Item("r", QUESTION))
    assert index.missing.tolist() == [True, False]
    assert not index.find("Who was she?".join(AROUND))


def test_a_template_counts_with_its_answer_alone():
    items = [Item(str(n), f"{TEMPLATE} Answer by a letter.", f"answer{n} it") for n in range(60)]
    index = index_of(*items)
    assert not index.find(f"{TEMPLATE} Answer by a letter.".join(AROUND))
    found = index.find(f"{TEMPLATE} Answer by a letter. answer7 it".join(AROUND))
    assert [match.item for match in found] == [7]


@pytest.mark.parametrize(
    "change", [str, lambda text: "\n".join(text), lambda text: text[:9] + "某" + text[10:]]
)
def test_a_script_without_spaces_is_compared_by_its_characters(change):
    text = f"今天天气很好。{change(CHINESE)}然后他们都回家了。"
    assert [match.item for match in index_of(Item("q", CHINESE)).find(text)] == [0]
    assert not index_of(Item("q", CHINESE)).find(
        "今天天气很好。然后他们都回家了，每年春天能卖掉多少只小羊。"
    )


def test_all_of_many_questions_in_one_document_are_found():
    rng = random.Random(3)
    words = [f"w{n}" for n in range(4000)]
    items = [Item(str(n), " ".join(rng.sample(words, 20))) for n in range(200)]
    index = index_of(*items)
    found = index.find("\n".join(item.question for item in items))
    assert sorted(match.item for match in found) == list(range(200))
    assert not index.find("".join(AROUND)), "nothing of a document stays for the next"


def test_a_long_text_is_found_by_all_its_parts_and_not_by_one():
    rng = random.Random(4)
    text = " ".join(f"w{rng.randrange(9000)}" for _ in range(500))
    index = index_of(Item("q", text))
    assert index.find(text.join(AROUND))
    assert not index.find(" ".join(text.split()[:200]).join(AROUND))


def test_an_index_is_the_same_when_it_is_written_and_read(tmp_path):
    index = index_of(Item("q", QUESTION, ANSWER), Item("r", CHINESE))
    index.save(tmp_path / "one.npz")
    again = ItemIndex.load(tmp_path / "one.npz")
    again.save(tmp_path / "two.npz")
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "two.npz").read_bytes()
    assert again.ids == ("q", "r")
    text = f"{QUESTION} {ANSWER} {CHINESE}"
    assert again.find(text) == index.find(text)
    assert QUESTION.encode() not in (tmp_path / "one.npz").read_bytes()


@given(
    st.text(
        alphabet=st.sampled_from("abXY 09'’-.,\n\u00ad\u200d漢字かไทยкЙÀßé\U00020001😀"),
        max_size=40,
    )
)
def test_words_are_those_that_documents_are_compared_by_elsewhere(text):
    words, _, _, shapes = find_words(code_points(text))
    hashes, alone = hash_words(text)
    assert hashes.tolist() == words.tolist()
    assert alone.tolist() == (shapes & UNSPACED > 0).tolist()


def test_many_texts_at_once_give_what_each_gives_alone(monkeypatch):
    monkeypatch.setattr("climbstream.builder.contamination.index._AT_ONCE", 300)
    rng = random.Random(4)
    words = [f"word{n}" for n in range(400)]
    questions = [" ".join(rng.sample(words, 14)) for _ in range(6)]
    index = index_of(*(Item(f"q{n}", question) for n, question in enumerate(questions)))
    texts = [" ".join(rng.sample(words, 40)) for _ in range(30)]
    texts[3] += f" {questions[0]} and {questions[1]}."
    texts[7] = f"Été … ﬁne {questions[2].upper()}"
    texts[8] = ""
    texts[29] += f" {questions[5]}"
    found = index.find_all(texts)
    assert found == [index.find(text) for text in texts]
    assert [n for n, matches in enumerate(found) if matches] == [3, 7, 29]
    assert index.find_all([]) == []
