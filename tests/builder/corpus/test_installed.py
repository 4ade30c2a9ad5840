"""installed_documents: a labelled corpus out of what is installed."""

import subprocess
import sys
import sysconfig
from collections import Counter
from pathlib import Path

import pytest

from climbstream.builder.corpus.document import Document
from climbstream.builder.corpus.installed import KINDS, MAX_BYTES, MIN_CHARS, installed_documents
from climbstream.loader.core.errors import UsageError

LINE = "value = 'a line of a module that is long enough to be worth reading'\n"


@pytest.fixture(scope="module")
def sample() -> list[Document]:
    return list(installed_documents(megabytes=4, seed=17))


def test_the_same_seed_gives_the_same_documents_in_the_same_order(sample: list[Document]) -> None:
    assert list(installed_documents(megabytes=4, seed=17)) == sample


def test_another_seed_gives_another_sample(sample: list[Document]) -> None:
    other = {document.id for document in installed_documents(megabytes=4, seed=18)}
    shared = other & {document.id for document in sample}
    assert len(shared) < len(sample) / 2


def test_the_budget_is_kept(sample: list[Document]) -> None:
    assert sum(sizes_of_kinds(sample).values()) == pytest.approx(4e6, rel=0.1)


def test_a_budget_of_a_few_documents_is_kept() -> None:
    documents = list(installed_documents(megabytes=0.2))
    assert sum(sizes_of_kinds(documents).values()) == pytest.approx(0.2e6, rel=0.1)


@pytest.mark.slow
def test_the_budget_is_kept_where_kinds_run_out() -> None:
    documents = list(installed_documents(megabytes=30))
    sizes = sizes_of_kinds(documents)
    assert sum(sizes.values()) == pytest.approx(30e6, rel=0.1)
    assert max(sizes.values()) < 30e6 / 5


def test_there_are_many_kinds_and_none_is_most_of_the_sample(sample: list[Document]) -> None:
    sizes = sizes_of_kinds(sample)
    assert len(sizes) >= 10
    assert sizes.keys() <= {kind.name for kind in KINDS}
    assert max(sizes.values()) < 4e6 / 5


def test_a_prefix_is_a_sample_of_the_kinds(sample: list[Document]) -> None:
    assert len({document.label for document in sample[:100]}) >= 10


def test_no_distribution_is_most_of_a_kind_that_many_have(sample: list[Document]) -> None:
    tests = [document for document in sample if document.label == "tests"]
    sizes = Counter[str]()
    for document in tests:
        sizes[document.origin.split("/")[0]] += len(document.text)
    assert max(sizes.values()) < sum(sizes.values()) / 2


def test_ids_are_unique(sample: list[Document]) -> None:
    assert len({document.id for document in sample}) == len(sample)


def test_origins_are_relative_and_begin_with_a_distribution(sample: list[Document]) -> None:
    for document in sample:
        assert not Path(document.origin).is_absolute()
        assert ".." not in document.origin.split("/")
    assert {"python", "numpy", "torch"} <= {document.origin.split("/")[0] for document in sample}


def test_documents_are_neither_tiny_nor_long(sample: list[Document]) -> None:
    for document in sample:
        assert len(document.text) >= MIN_CHARS
        assert len(document.text.encode()) <= MAX_BYTES


def test_licences_are_one_short_line(sample: list[Document]) -> None:
    licenses = {document.origin.split("/")[0]: document.license for document in sample}
    assert licenses["python"] == "PSF-2.0"
    assert all(len(text) <= 60 and "\n" not in text for text in licenses.values())


def test_the_project_itself_is_left_out(sample: list[Document]) -> None:
    assert not [document for document in sample if document.origin.startswith("climbstream/")]


def test_nothing_that_is_read_is_imported() -> None:
    script = (
        "import sys; from climbstream.builder.corpus.installed import installed_documents as read\n"
        "before = set(sys.modules); list(read(megabytes=0.2)); new = set(sys.modules) - before\n"
        "print({name.split('.')[0] for name in new} - sys.stdlib_module_names)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "set()\n"), done.stderr


def test_a_budget_of_nothing_is_refused() -> None:
    with pytest.raises(UsageError, match="megabytes is 0; it must be above 0"):
        installed_documents(megabytes=0)


def test_a_long_file_is_cut_at_ends_of_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = LINE * 1000
    install(tmp_path, "tame", {"tame/long.py": text.encode()})
    pieces = {document.id: document.text for document in only(tmp_path, monkeypatch)}
    ids = ["tame/tame/long.py", *(f"tame/tame/long.py#{number}" for number in (2, 3, 4))]
    assert sorted(pieces) == ids
    assert "".join(pieces[name] for name in ids) == text
    assert all(piece.endswith("\n") for piece in pieces.values())


def test_a_line_longer_than_a_document_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "var é = 1;" * 5000
    install(tmp_path, "tame", {"tame/small.js": text.encode()})
    pieces = {document.id: document.text for document in only(tmp_path, monkeypatch)}
    assert "".join(pieces[name] for name in sorted(pieces)) == text
    assert all(len(piece.encode()) <= MAX_BYTES for piece in pieces.values())


def test_docstrings_and_descriptions_are_what_is_read_of_their_kinds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = "What the module says.".ljust(MIN_CHARS, "!")
    source = f'"""{said}"""\ndef f():\n    """Also this \\d."""\n    return 1\n'
    install(tmp_path, "numpy", {"numpy/f.py": source.encode()}, description=said)
    texts = {document.label: document.text for document in only(tmp_path, monkeypatch)}
    assert texts == {"docstrings": f"{said}\n\nAlso this \\d.", "readmes": said}


def test_what_is_not_utf8_or_gone_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {
        "tame/good.py": (LINE * 5).encode(),
        "tame/bad.py": ("# é\n" + LINE * 5).encode("latin-1"),
    }
    install(tmp_path, "tame", files | {"tame/gone.py": LINE.encode() * 5})
    (tmp_path / "site-packages/tame/gone.py").unlink()
    assert [document.id for document in only(tmp_path, monkeypatch)] == ["tame/tame/good.py"]


def test_editable_installs_are_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path, "tame", {"tame/a.py": (LINE * 5).encode()})
    install(tmp_path, "mine", {"mine/a.py": (LINE * 5).encode()})
    url = tmp_path / "site-packages/mine-1.0.dist-info/direct_url.json"
    url.write_text('{"dir_info": {"editable": true}, "url": "file:///mine"}')
    assert [document.id for document in only(tmp_path, monkeypatch)] == ["tame/tame/a.py"]


def install(directory: Path, name: str, files: dict[str, bytes], *, description: str = "") -> None:
    """Lay down the distribution ``name`` in ``directory``/site-packages."""
    metadata = f"Metadata-Version: 2.4\nName: {name}\nVersion: 1.0\n\n{description}"
    folder = f"{name}-1.0.dist-info"
    files = {f"{folder}/METADATA": metadata.encode(), **files}
    for path, data in files.items():
        place = directory / "site-packages" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
    record = directory / "site-packages" / folder / "RECORD"
    record.write_text("".join(f"{path},,\n" for path in files))


def only(directory: Path, monkeypatch: pytest.MonkeyPatch) -> list[Document]:
    """Return all the documents of ``directory``/site-packages, with no standard library."""
    monkeypatch.setattr(sys, "path", [str(directory / "site-packages")])
    monkeypatch.setattr(sysconfig, "get_path", lambda _: str(directory / "nowhere"))
    return list(installed_documents())


def sizes_of_kinds(documents: list[Document]) -> Counter[str]:
    """Return the bytes of ``documents`` by label."""
    sizes = Counter[str]()
    for document in documents:
        sizes[document.label] += len(document.text.encode())
    return sizes
