"""Encoders: fastokens stands for tokenizers where it gives the same ids, and nowhere else."""

import json
import re
import string
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import (
    AddedToken,
    Regex,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from climbstream.builder.writers.encoder import (
    FastEncoder,
    GuardedEncoder,
    ReferenceEncoder,
    compare_encoders,
    find_difference,
    installed_version,
    open_encoder,
)
from climbstream.builder.writers.hostile_texts import hostile_texts

GPT4 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK = (
    r"\p{N}{1,3}",
    "[一-龥぀-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
ACCEPTED = (
    "gpt2",
    "llama2",
    "llama3",
    "qwen2",
    "gpt4o",
    "mistral tekken",
    "deepseek3",
    "smollm",
    "neox",
    "roberta",
    "gemma",
)
REFUSED = ("mistral metaspace", "bert", "t5")


def byte_level(texts, pre, *added, normalizer=None, **model):
    """A BPE of bytes, with the settings of a model."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    if normalizer:
        tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=700,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens(list(added))
    data = json.loads(tokenizer.to_str())
    data["model"].update(model)
    return Tokenizer.from_str(json.dumps(data))


def sentencepiece(texts, normalizer, pre, *added):
    """A BPE of characters that falls back to bytes, as converted from SentencePiece."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("▁+[^▁]*|[^▁]+"), "isolated")
    names = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=900, special_tokens=names, show_progress=False)
    tokenizer.train_from_iterator(texts, trainer)
    data = json.loads(tokenizer.to_str())
    data["added_tokens"] = data["added_tokens"][:3]
    data["normalizer"] = data["pre_tokenizer"] = None
    tokenizer = Tokenizer.from_str(json.dumps(data))
    if normalizer:
        tokenizer.normalizer = normalizer
    if pre:
        tokenizer.pre_tokenizer = pre
    tokenizer.add_tokens(list(added))
    return tokenizer


def make_kinds(texts):
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bytes_of_words = pre_tokenizers.ByteLevel(add_prefix_space=False)

    def split(*patterns):
        parts = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in patterns]
        return pre_tokenizers.Sequence([*parts, bytes_only])

    tools = [AddedToken(name, normalized=False, special=False) for name in ("<tool>", "</tool>")]
    begin = AddedToken("<|im_start|>", normalized=False, special=True)
    blanks = [AddedToken(" " * n, normalized=True, special=False) for n in (2, 4, 8)]
    lines = [AddedToken("\n" * n, normalized=False, special=False) for n in range(2, 6)]
    kinds = {
        "gpt2": byte_level(texts, bytes_of_words),
        "llama3": byte_level(texts, split(GPT4), ignore_merges=True),
        "qwen2": byte_level(
            texts,
            split(GPT4.replace("{1,3}", "")),
            begin,
            *tools,
            normalizer=normalizers.NFC(),
        ),
        "gpt4o": byte_level(texts, split(O200K)),
        "mistral tekken": byte_level(
            texts, split(O200K.replace("(?i:'s|'t|'re|'ve|'m|'ll|'d)?", "")), ignore_merges=True
        ),
        "deepseek3": byte_level(texts, split(*DEEPSEEK)),
        "smollm": byte_level(
            texts, pre_tokenizers.Sequence([pre_tokenizers.Digits(True), bytes_of_words])
        ),
        "neox": byte_level(texts, bytes_of_words, *blanks, normalizer=normalizers.NFC()),
        "roberta": byte_level(
            texts,
            pre_tokenizers.ByteLevel(add_prefix_space=True),
            AddedToken("<mask>", lstrip=True, special=True),
        ),
        "llama2": sentencepiece(
            texts,
            normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
            None,
        ),
        "gemma": sentencepiece(
            texts,
            normalizers.Replace(" ", "▁"),
            pre_tokenizers.Split(" ", "merged_with_previous"),
            *lines,
        ),
        "mistral metaspace": sentencepiece(
            texts, None, pre_tokenizers.Metaspace("▁", "first", split=False)
        ),
        "bert": Tokenizer(models.WordPiece(unk_token="[UNK]")),
        "t5": Tokenizer(models.Unigram()),
    }
    kinds["llama3"].post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    bert, t5 = kinds["bert"], kinds["t5"]
    bert.normalizer, bert.pre_tokenizer = (
        normalizers.BertNormalizer(),
        pre_tokenizers.BertPreTokenizer(),
    )
    bert.train_from_iterator(
        texts, trainers.WordPieceTrainer(special_tokens=["[UNK]"], show_progress=False)
    )
    t5.normalizer, t5.pre_tokenizer = normalizers.NFKC(), pre_tokenizers.Metaspace()
    t5.train_from_iterator(
        texts,
        trainers.UnigramTrainer(special_tokens=["<unk>"], unk_token="<unk>", show_progress=False),
    )
    return kinds


@pytest.fixture(scope="module")
def texts(make_records):
    return [record["text"] for record in make_records(each=30)]


@pytest.fixture(scope="module")
def kinds(texts):
    scripts = "日本語 ελληνικά русский हिन्दी العربية caf\u00e9 don't 1234"
    return make_kinds([*texts, scripts, scripts, string.printable])


@pytest.fixture(scope="module")
def without_bracket(texts):
    """A SentencePiece of a corpus without ``<``: fastokens reads ``<s>`` as the token it names."""
    return sentencepiece(texts, normalizers.Replace(" ", "▁"), None)


any_character = st.characters(exclude_categories=["Cs"])
any_piece = st.sampled_from(
    [
        "<|endoftext|>",
        "<tool>",
        "<mask>",
        " <mask>",
        "<s>",
        "▁",
        "\r\n",
        "  ",
        "\n\n\n",
        "'ll",
        "\0",
    ]
)
any_text = st.lists(st.text(any_character) | any_piece | st.text("aA '\n1\u0301")).map("".join)


@pytest.fixture(scope="module")
def differ(kinds):
    """Return a function that says how the ids of a kind differ."""
    encoders = {}

    def differ(kind, texts):
        if kind not in encoders:
            encoders[kind] = FastEncoder(kinds[kind]), ReferenceEncoder(kinds[kind])
        return find_difference(*encoders[kind], texts)

    return differ


@pytest.mark.parametrize("kind", ACCEPTED)
@given(texts=st.lists(any_text, max_size=8))
def test_ids_are_those_of_tokenizers_for_any_text(differ, kind, texts):
    assert differ(kind, texts) == ""


@pytest.mark.parametrize("kind", ACCEPTED)
def test_hostile_texts_have_the_ids_of_tokenizers(kinds, kind):
    assert compare_encoders(kinds[kind], hostile_texts(kinds[kind])) == ""


@pytest.mark.parametrize("kind", REFUSED)
def test_a_tokenizer_that_fastokens_does_not_take_is_named_with_what_it_lacks(kinds, kind):
    assert compare_encoders(kinds[kind], ["text"]).startswith("does not take this tokenizer: ")


def test_other_ids_are_told_with_their_text_and_place(without_bracket):
    difference = compare_encoders(without_bracket, ["lighthouse", "a <s> b"])
    assert re.fullmatch(
        r"gives other ids for 'a <s> b' \(7 characters\): at token \d+, 1 and not 63", difference
    )


def test_hostile_texts_find_a_tokenizer_that_is_read_otherwise(without_bracket):
    assert compare_encoders(without_bracket, hostile_texts(without_bracket))


def test_special_tokens_in_a_document_are_text(kinds):
    text = "it says <|endoftext|> here"
    for encoder in (FastEncoder(kinds["gpt2"]), ReferenceEncoder(kinds["gpt2"])):
        assert 0 not in encoder.encode([text]).ids
        assert kinds["gpt2"].decode(encoder.encode([text]).ids.tolist()) == text


def test_no_document_is_cut_or_filled_up_whatever_the_file_says(kinds):
    text = "the lighthouse and the harbour " * 150
    whole = ReferenceEncoder(kinds["gpt2"]).encode([text, "a"]).lengths.tolist()
    assert whole[0] > 512
    for encoder in (FastEncoder, ReferenceEncoder):
        limited = Tokenizer.from_str(kinds["gpt2"].to_str())
        limited.enable_truncation(8)
        limited.enable_padding(length=512)
        assert encoder(limited).encode([text, "a"]).lengths.tolist() == whole


class PanicError(BaseException):
    """What stands for a panic."""


class Panics:
    """Fails on some texts as a library in Rust does: with what is no Exception."""

    def __init__(self, encoder):
        self.encoder = encoder

    def encode(self, texts):
        """Encode, but for texts of comets."""
        if any("comet" in text for text in texts):
            raise PanicError("index out of bounds")
        return self.encoder.encode(texts)


def test_a_document_on_which_fastokens_panics_is_encoded_by_tokenizers(kinds, texts, capsys):
    reference = ReferenceEncoder(kinds["gpt2"])
    guarded = GuardedEncoder(Panics(FastEncoder(kinds["gpt2"])), reference)
    assert find_difference(guarded, reference, texts) == ""
    assert sum("comet" in text for text in texts) > 1
    (said,) = capsys.readouterr().err.splitlines()  # one line, however many there are
    assert said.endswith("PanicError: index out of bounds; such texts are encoded by tokenizers")


def test_an_interrupt_is_no_failure_of_an_encoder(kinds):
    class Interrupted:
        def encode(self, _):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        GuardedEncoder(Interrupted(), ReferenceEncoder(kinds["gpt2"])).encode(["a"])


def test_a_panic_in_the_comparison_is_a_difference(kinds):
    reference = ReferenceEncoder(kinds["gpt2"])
    assert "fails on one of 2 texts" in find_difference(
        Panics(reference), reference, ["a", "comet"]
    )


def test_a_process_that_has_another_fastokens_encodes_by_tokenizers(kinds):
    assert isinstance(open_encoder(kinds["gpt2"], installed_version()), GuardedEncoder)
    for version in ("", "0.0.1"):
        assert isinstance(open_encoder(kinds["gpt2"], version), ReferenceEncoder)


def test_a_process_where_fastokens_does_not_open_encodes_by_tokenizers(kinds, capsys):
    assert isinstance(open_encoder(kinds["bert"], installed_version()), ReferenceEncoder)
    assert "texts are encoded here by tokenizers, not by fastokens" in capsys.readouterr().err


def test_no_text_has_no_tokens(kinds):
    for encoder in (FastEncoder(kinds["gpt2"]), ReferenceEncoder(kinds["gpt2"])):
        assert encoder.encode([]).split() == []
        assert encoder.encode([]).end_with(0).ids.tolist() == []
        assert encoder.encode(["", "a", ""]).end_with(0).lengths.tolist() == [1, 2, 1]


@pytest.mark.slow
@pytest.mark.parametrize("run", ["a", " ", "\n", "()", "\u0301", "🙂"])
def test_ten_megabytes_of_one_character_neither_hang_nor_crash(kinds, run):
    text = run * (10_000_000 // len(run.encode()))
    script = (
        "import sys; from tokenizers import Tokenizer;"
        "from climbstream.builder.writers.encoder import FastEncoder;"
        "encoder = FastEncoder(Tokenizer.from_str(sys.argv[1]));"
        "print(len(encoder.encode([sys.stdin.read()]).ids))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, kinds["llama3"].to_str()],
        input=text.encode(),
        stdout=subprocess.PIPE,
        timeout=300,
        check=True,
    )
    assert int(done.stdout) > 10_000


def test_encoders_start_no_threads(kinds, texts):
    script = (
        "import os, sys; from tokenizers import Tokenizer;"
        "from climbstream.builder.writers import encoder as e;"
        "tokenizer = Tokenizer.from_str(sys.argv[1]);"
        "before = len(os.listdir('/proc/self/task'));"
        "texts = sys.stdin.read().split('\\n') * 40;"
        "[kind(tokenizer).encode(texts) for kind in (e.FastEncoder, e.ReferenceEncoder)];"
        "print(len(os.listdir('/proc/self/task')) - before)"
    )
    arguments = [sys.executable, "-c", script, kinds["llama3"].to_str()]
    done = subprocess.run(
        arguments, input="\n".join(texts).encode(), stdout=subprocess.PIPE, check=True
    )
    assert done.stdout.strip() == b"0"
