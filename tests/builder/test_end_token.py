"""The token that ends a document: what is named is taken, and nothing is guessed in silence."""

import json
import subprocess

import pytest
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers

from climbstream.builder import append
from climbstream.builder.end_token import (
    EndChoice,
    EndToken,
    find_end_token,
    read_configs,
    trained_end_token,
)
from climbstream.builder.pipeline import build
from climbstream.builder.settings import BuildSettings
from climbstream.loader import Manifest
from climbstream.loader.core.errors import InvalidDataError, UsageError

CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"


def tokenizer_of(*specials, words=("a", "b")):
    """A tokenizer of single bytes, with words and special tokens behind them."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocab = {token: number for number, token in enumerate([*alphabet, *words])}
    vocab = {token: number for number, token in enumerate(dict.fromkeys(vocab))}
    tokenizer = Tokenizer(models.BPE(vocab, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken(name, special=True) for name in specials])
    return tokenizer


@pytest.fixture
def folder(tmp_path):
    """Write a tokenizer and files beside it; return its folder."""

    def write(tokenizer, **configs):
        path = tmp_path / "tokenizer"
        path.mkdir()
        tokenizer.save(str(path / "tokenizer.json"))
        for name, value in configs.items():
            (path / f"{name}.json").write_text(json.dumps(value))
        return path

    return write


def find(tokenizer, configs=None, **choice):
    return find_end_token(tokenizer, EndChoice(**choice), configs or {}, "it")


TWO = ("<|endoftext|>", "<|im_end|>")


@pytest.mark.parametrize("named", ["<done>", {"content": "<done>", "special": True}])
@pytest.mark.parametrize("beside", ["folder", "file"])
def test_files_beside_a_tokenizer_say_its_end(folder, named, beside):
    tokenizer = tokenizer_of("<|endoftext|>", "<done>")
    path = folder(tokenizer, tokenizer_config={"eos_token": named}, special_tokens_map={})
    configs = read_configs(str(path if beside == "folder" else path / "tokenizer.json"))
    number = tokenizer.token_to_id("<done>")
    assert find(tokenizer, configs) == EndToken(number, "<done>", CONFIG)


def test_the_older_file_counts_where_the_newer_says_nothing(folder):
    path = folder(
        tokenizer_of(*TWO),
        tokenizer_config={"eos_token": None},
        special_tokens_map={"eos_token": "<|im_end|>"},
    )
    assert find(tokenizer_of(*TWO), read_configs(str(path))).source == MAP
    assert find(tokenizer_of(*TWO), read_configs(str(path))).name == "<|im_end|>"


@pytest.mark.parametrize(
    ("choice", "name"),
    [({"eos_token": "b"}, "b"), ({"eos_id": 3}, None), ({"no_eos": True}, "")],
)
def test_what_the_user_names_counts_before_the_files(choice, name):
    tokenizer = tokenizer_of(*TWO)
    end = find(tokenizer, {CONFIG: {"eos_token": "<|im_end|>"}}, **choice)
    assert end.id == (None if name == "" else choice.get("eos_id", tokenizer.token_to_id("b")))
    assert end.source.startswith("--")


def test_of_two_candidates_none_is_taken_by_guess():
    with pytest.raises(InvalidDataError) as error:
        find(tokenizer_of(*TWO))
    assert "any of <|endoftext|>, <|im_end|> may end documents of it" in str(error.value)
    assert "--eos-token NAME or --eos-id N, or use --no-eos for no end token" in str(error.value)


def test_a_special_token_counts_before_a_word_of_that_name():
    assert find(tokenizer_of("<eos>", words=("</s>",))).name == "<eos>"
    assert find(tokenizer_of(words=("</s>",))).name == "</s>"


def test_no_end_token_is_an_error_that_says_how_to_name_one_or_do_without():
    with pytest.raises(InvalidDataError) as error:
        find(tokenizer_of("<done>"))
    assert "nothing says which token ends documents of it" in str(error.value)
    assert "its special tokens are <done>" in str(error.value)
    assert "--no-eos" in str(error.value)


@pytest.mark.parametrize("number", [-2, 10**6, 10**30])
def test_a_number_outside_of_the_vocabulary_is_refused(number):
    with pytest.raises(UsageError, match=rf"it has no token {number}: its \d+ tokens are numbered"):
        find(tokenizer_of(), eos_id=number)


def test_a_name_that_the_tokenizer_lacks_is_refused_with_those_that_are_near():
    with pytest.raises(UsageError, match=r"no token '<\|im_start\|>'; it has .*<\|im_end\|>"):
        find(tokenizer_of(*TWO), eos_token="<|im_start|>")
    with pytest.raises(InvalidDataError, match="says that documents end with '<gone>', which it"):
        find(tokenizer_of(*TWO), {CONFIG: {"eos_token": "<gone>"}})


@pytest.mark.parametrize("config", [{}, [], None, {"eos_token": 7}, {"eos_token": {"content": []}}])
def test_a_file_that_names_no_end_token_says_nothing(config):
    assert find(tokenizer_of("</s>"), {CONFIG: config}).name == "</s>"


def test_only_one_thing_is_said():
    with pytest.raises(UsageError, match="exclude each other"):
        EndChoice(eos_id=1, no_eos=True)
    with pytest.raises(UsageError, match="exclude each other"):
        BuildSettings(eos_token="a", eos_id=1)


def test_a_tokenizer_that_is_trained_has_its_own_end():
    assert trained_end_token(EndChoice()).id == 0
    assert trained_end_token(EndChoice(no_eos=True)).id is None
    with pytest.raises(UsageError, match="a tokenizer that is trained ends documents with"):
        trained_end_token(EndChoice(eos_id=4))


def test_a_build_ends_documents_as_its_tokenizer_says_and_an_append_too(
    folder, make_records, write_jsonl, tmp_path, climb, capsys
):
    tokenizer = tokenizer_of("<|endoftext|>", "<done>")
    path = folder(tokenizer, tokenizer_config={"eos_token": "<done>"})
    source = write_jsonl(tmp_path / "a.jsonl", make_records(10))
    more = write_jsonl(tmp_path / "b.jsonl", make_records(4, seed=1))
    settings = BuildSettings(
        clusters=2,
        micro_clusters=4,
        dims=8,
        tokenizer=str(path),
        min_cluster_score={},
        min_document_score={},
    )
    number = tokenizer.token_to_id("<done>")
    manifest = build([str(source)], tmp_path / "out", settings, workers=1)
    assert manifest.eos_id == number
    assert manifest.provenance["end"] == {"id": number, "name": "<done>", "source": CONFIG}
    said = capsys.readouterr().err
    assert f"documents end with <done>, token {number}, by {CONFIG}" in said
    (path / CONFIG).unlink()
    grown = append([str(more)], tmp_path / "out", workers=1)
    assert grown.eos_id == number
    run: subprocess.CompletedProcess[str] = climb(
        "export", tmp_path / "out", "--to", "jsonl", "--out", tmp_path / "rows"
    )
    assert run.returncode == 0, run.stderr
    rows = [
        json.loads(line)
        for file in (tmp_path / "rows").rglob("*.jsonl")
        for line in file.read_text().splitlines()
    ]
    ended = [row["tokens"] for row in rows if "tokens" in row]
    assert len(ended) == sum(c.documents for c in grown.clusters)
    assert sum(tokens.count(number) for tokens in ended) in (0, len(ended))


def test_a_build_without_end_token_is_said_and_kept(make_records, write_jsonl, tmp_path, climb):
    source = write_jsonl(tmp_path / "a.jsonl", make_records(10))
    run = climb("build", source, "--out", tmp_path / "out", "--clusters", 2, "--no-eos")
    assert run.returncode == 0, run.stderr
    assert "documents have no end token (--no-eos)" in run.stderr
    assert Manifest.load(tmp_path / "out").eos_id is None


def test_a_build_by_a_tokenizer_without_end_token_ends_before_anything_is_read(
    folder, make_records, write_jsonl, tmp_path, climb
):
    source = write_jsonl(tmp_path / "a.jsonl", make_records(4))
    path = folder(tokenizer_of("<done>"))
    run = climb("build", source, "--out", tmp_path / "out", "--tokenizer", path)
    assert run.returncode == 3
    assert "nothing says which token ends documents" in run.stderr
    assert not (tmp_path / "out" / ".build").exists()
