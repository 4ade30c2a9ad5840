"""Near copies: find documents that nearly repeat a better document.

A signature is divided into `BANDS` bands. Two documents are compared only if their signatures have
at least one band in common (Broder 1997; Leskovec, Rajaraman, Ullman, "Mining of Massive Datasets",
chapter 3). A pair with similarity .8 has no band in common with a probability of 10^-7.

There is one step per band. Documents that are equal in this band form a group, and each document is
compared with the best document of its group. A document that is found to be a copy is not compared
in later bands.

A corpus of one block is searched in one task. If there are several blocks, tasks exchange files for
each band. The hashes of the band are the key of a document; documents of one group have the same
key. The head of a group in a block is the best of the group's documents in this block.

1. `advance`, for each block: choose the head of each group, and write the heads, sorted by range of
   keys.
2. `match`, for each range of keys: read the heads of each key. There is at most one head per key
   and block, however large the group is. For each head, write the number of the best head with the
   same key. Request the signature of the best head from its block.
3. `answer`, for each block: write the requested signatures.
4. `advance` of the next band: compare the documents of each block with the best documents of their
   groups.

So a task has only the data of one block in memory, and the main process has no such data.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.loader.core.console import Progress
from climbstream.loader.core.engines.engine import Engine, run_stage
from climbstream.loader.core.files import atomic_path

from .dedup import BANDS, NOTHING, SIGNATURE, SPAN
from .exchange import Block, read_part, read_whole_part, starts_of, write_by_hash, write_parts

_PAIRS = 1 << 16
"""Number of pairs that are compared at a time; their signatures take 16 MB."""
_EMPTY = int.from_bytes(bytes([NOTHING] * SPAN))
_LOW = np.uint64(0xFFFFFFFF)

_COPY = np.dtype([("copy", "<u4"), ("original", "<i8")])
_MEMBER = np.dtype([("member", "<u4"), ("head", "<u4")])
_HEAD = np.dtype([("key", "<u4"), ("worth", "<f4"), ("number", "<i8")])
_BEATEN = np.dtype([("head", "<i8"), ("best", "<i8")])
_QUESTION = np.dtype([("number", "<i8"), ("asker", "<u4")])
_ANSWER = np.dtype([("number", "<i8"), ("original", "<i8"), ("signature", "u1", (SIGNATURE,))])


class Worth(Protocol):
    """A function that returns how good each document of a partition is; it can be pickled."""

    def __call__(self, source: Partition, number: int) -> NDArray[np.float32]:
        """Return the worth of each document of ``source``, ``[n]``.

        A document with worth -inf is not compared. ``number`` is the number of the first document
        of the partition.
        """


@dataclass(frozen=True, slots=True)
class NearTask:
    """Input of one step of the search, for one block."""

    block: Block[Partition]
    folder: Path
    """Folder of the files that blocks exchange."""
    starts: NDArray[np.int64]
    """Number of the first document of each block, ``[blocks + 1]``."""
    worth: Worth
    least: float
    """Least similarity between a copy and its original, 0 to 1."""
    before: int
    """Number of documents at the beginning of the corpus that can be originals, but are never
    marked as copies."""
    step: int = 0

    def without_sources(self) -> Self:
        """Return the task without its sources, for steps that read only files in ``folder``.

        Such a task is small, which matters because it is sent to workers once per step.
        """
        return replace(self, block=replace(self.block, sources=(), counts=(len(self.block),)))

    @property
    def number(self) -> int:
        """Number of the block."""
        return self.block.number

    def path(self, name: str, number: int | None = None, step: int | None = None) -> Path:
        """Return the path of file ``name`` for a block and a step; default: those of the task."""
        folder = self.folder / f"step-{self.step if step is None else step:02d}"
        return folder / f"{name}-{self.number if number is None else number}"

    def paths(self, name: str, step: int) -> list[Path]:
        """Return the paths of the files ``name`` of a step, for all blocks."""
        return [self.path(name, number, step) for number in range(self.count)]

    @property
    def count(self) -> int:
        """Number of blocks."""
        return len(self.starts) - 1


def find_near(
    engine: Engine,
    blocks: Sequence[Block[Partition]],
    folder: Path,
    worth: Worth,
    least: float,
    before: int = 0,
) -> None:
    """Write ``original`` int64 ``[n]`` to each partition: for a copy, its original; else -1.

    Documents are numbered in the order of the corpus. Of documents with a similarity of ``least``
    or more, the original is the document with the highest ``worth``. If several documents have the
    highest worth, the first of them is the original. An original is not itself a copy. The first
    ``before`` documents can be originals, but nothing is written for them. An interrupted search
    continues from the files in ``folder``.
    """
    starts = starts_of(blocks)
    tasks = [NearTask(block, folder, starts, worth, least, before) for block in blocks]
    if len(tasks) == 1:
        run_stage(engine, "find near copies", "documents", search, tasks)
        return
    done = folder / "done"
    if done.exists():
        return

    bare = [task.without_sources() for task in tasks]

    def run(function: Callable[[NearTask], int], step: int) -> int:
        sent = tasks if function in (gather, finish) else bare
        return sum(n for _, n in engine.run(function, (replace(t, step=step) for t in sent)))

    def forget(step: int) -> None:
        # Rename the folder before deleting it, so that a folder with this name is always complete.
        if (old := folder / f"step-{step:02d}").exists():
            shutil.rmtree(folder / "old", ignore_errors=True)
            shutil.rmtree(old.rename(folder / "old"))

    run(gather, 0)
    begun = min((int(path.name[-2:]) for path in folder.glob("step-*")), default=0)
    with Progress("find near copies", BANDS, "bands") as progress:
        progress.skip(min(begun, BANDS))
        for step in range(begun, BANDS):
            run(advance, step)
            forget(step - 1)
            run(match, step)
            run(answer, step)
            progress.add(1)
    step = max(begun, BANDS)
    run(advance, step)
    run(answer, step)
    while run(advance, step + 1):
        forget(step)
        step += 1
        run(answer, step)
    run(finish, step)
    done.touch()
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path != done:
            path.unlink()


class _Documents:
    """The documents of a block, with the originals found so far."""

    def __init__(
        self, start: int, signatures: NDArray[np.uint8], worth: NDArray[np.float32]
    ) -> None:
        self.start = start
        self.signatures = signatures
        self.worth = worth
        self.original = np.full(len(worth), -1, np.int64)
        """Number of the original of which each document is a copy; -1 for other documents."""

    @classmethod
    def open(cls, task: NearTask, step: int) -> Self:
        """Open the files that `gather` wrote, and the originals that are known after ``step``."""
        signatures = np.load(task.folder / f"signatures-{task.number}.npy", mmap_mode="r")
        worth = np.load(task.folder / f"worth-{task.number}.npy")
        documents = cls(task.block.start, signatures, worth)
        if step >= 0:
            copies = np.load(task.path("copies", step=step))
            documents.original[copies["copy"]] = copies["original"]
        return documents

    def groups(self, band: int) -> tuple[NDArray[Any], NDArray[Any]]:
        """Group the documents that are equal in ``band``, except those that are copies.

        Returns two arrays. The first has the heads, which are the best documents of the groups,
        sorted by key. The second has all other documents, each with the head of its group.
        """
        rows = self.signatures[band * SPAN : (band + 1) * SPAN]
        keys = np.ascontiguousarray(rows.T).view(np.uint32)[:, 0]
        free = np.flatnonzero((self.original < 0) & (self.worth > -np.inf) & (keys != _EMPTY))
        order, begins = _group(keys[free], self.worth[free])
        place = free[order]
        heads = np.empty(int(begins.sum()), _HEAD)
        best = place[begins]
        heads["key"], heads["worth"] = keys[best], self.worth[best]
        heads["number"] = best + self.start
        members = np.empty(len(place) - len(best), _MEMBER)
        members["member"] = place[~begins]
        members["head"] = best[np.cumsum(begins) - 1][~begins]
        return heads, members

    def mark_copies(
        self,
        copies: NDArray[Any],
        originals: NDArray[np.int64],
        signatures: NDArray[np.uint8],
        columns: NDArray[Any],
        least: float,
    ) -> None:
        """Set the original of each of ``copies`` to the one in ``originals``, or to -1.

        The value is -1 if copy and original are not similar enough. The signatures of the originals
        are ``columns`` of ``signatures``, ``[SIGNATURE, k]``.
        """
        for begin in range(0, len(copies), _PAIRS):
            part = slice(begin, begin + _PAIRS)
            same = self.signatures[:, copies[part]] == signatures[:, columns[part]]
            alike = np.count_nonzero(same, axis=0) >= least * SIGNATURE
            self.original[copies[part]] = np.where(alike, originals[part], -1)

    def judge(self, task: NearTask, step: int) -> None:
        """Compare documents with the best documents of their groups, which `match` has found."""
        members = np.load(task.path("members", step=step))
        beaten = read_whole_part(task.paths("beaten", step), task.number, task.count, _BEATEN)
        best = np.full(len(self.worth), -1, np.int64)
        best[beaten["head"] - self.start] = beaten["best"]
        ours = members[best[members["head"]] < 0]
        theirs = members[best[members["head"]] >= 0]
        heads = ours["head"].astype(np.int64)
        self.mark_copies(ours["member"], heads + self.start, self.signatures, heads, task.least)
        self.compare(
            task,
            step,
            np.concatenate([theirs["member"], beaten["head"] - self.start]),
            np.concatenate([best[theirs["head"]], beaten["best"]]),
        )

    def compare(
        self, task: NearTask, step: int, copies: NDArray[Any], originals: NDArray[np.int64]
    ) -> None:
        """Compare ``copies`` with ``originals``, whose signatures the tasks of `answer` wrote."""
        order = np.argsort(originals, kind="stable")
        copies, originals = copies[order], originals[order]
        for answers in read_part(task.paths("answers", step), task.number, task.count, _ANSWER):
            numbers = answers["number"]
            part = slice(*np.searchsorted(originals, [numbers[0], numbers[-1] + 1]).tolist())
            columns = np.searchsorted(numbers, originals[part])
            self.mark_copies(
                copies[part], originals[part], answers["signature"].T, columns, task.least
            )


def _group(
    keys: NDArray[np.uint32], worth: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Return the rows, sorted by key, then by worth (best first), and where each key begins."""
    # To sort one number is ten times as fast as to sort by two keys, which only few rows need.
    packed = keys.astype(np.uint64) << np.uint64(32) | np.arange(len(keys), dtype=np.uint64)
    packed.sort()
    order = (packed & _LOW).astype(np.int64)
    packed >>= np.uint64(32)
    begins = np.ones(len(keys), np.bool_)
    begins[1:] = packed[1:] != packed[:-1]
    shared = ~begins
    shared[:-1] |= ~begins[1:]
    rows = order[shared]
    order[shared] = rows[np.lexsort((-worth[rows], packed[shared]))]
    return order, begins


def search(task: NearTask) -> int:
    """Search a corpus of one block; return the number of its documents."""
    block = task.block
    signatures = np.empty((SIGNATURE, len(block)), np.uint8)
    worth = np.empty(len(block), np.float32)
    for source, begin, end in block.parts():
        signatures[:, begin:end] = source.read("signatures", mapped=True)
        worth[begin:end] = task.worth(source, begin)
    documents = _Documents(0, signatures, worth)
    for band in range(BANDS):
        _, members = documents.groups(band)
        heads = members["head"].astype(np.int64)
        documents.mark_copies(members["member"], heads, signatures, heads, task.least)
    # An original may itself have become a copy. Then its copies are compared with the last original
    # of the chain. They are dropped only if they are similar enough to this original.
    original = documents.original
    copies = np.flatnonzero(original >= 0)
    last = original[copies]
    while (further := original[last] >= 0).any():
        last[further] = original[last[further]]
    documents.mark_copies(copies, last, signatures, last, task.least)
    _write(task, documents)
    return len(block)


def gather(task: NearTask) -> int:
    """Write the signatures of a block to one file, and the worth of its documents to another."""
    done = task.folder / f"worth-{task.number}.npy"
    if done.exists():
        return 0
    worth = np.empty(len(task.block), np.float32)
    shape = (SIGNATURE, len(worth))
    with atomic_path(task.folder / f"signatures-{task.number}.npy") as path, path.open("wb") as out:
        header = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(out, header)
        first = out.tell()
        for source, begin, end in task.block.parts():
            worth[begin:end] = task.worth(source, task.block.start + begin)
            for row, values in enumerate(source.read("signatures", mapped=True)):
                out.seek(first + row * len(worth) + begin)
                out.write(values.tobytes())
    _save(done, worth)
    return 0


def advance(task: NearTask) -> int:
    """Compare the pairs of documents that the previous step found, and begin this step.

    The first `BANDS` steps are one per band. Later steps follow chains: an original that has become
    a copy is replaced by its own original. Returns how many originals were replaced. If the task
    was done before, this number is unknown. Then 1 is returned, so that another step follows.
    """
    if task.path("copies").exists():
        return 1
    documents = _Documents.open(task, task.step - 1)
    moved = 0
    if 0 < task.step <= BANDS:
        documents.judge(task, task.step - 1)
    elif task.step > BANDS:
        moved = _follow(task, documents.original)
    if task.step < BANDS:
        heads, members = documents.groups(task.step)
        _save(task.path("members"), members)
        write_by_hash(task.path("heads"), heads["key"].astype(np.uint64), task.count, heads)
    else:
        wanted = np.unique(documents.original[documents.original >= 0])
        _ask(task, wanted, np.full(len(wanted), task.number))
    copies = np.flatnonzero(documents.original >= 0)
    rows = np.empty(len(copies), _COPY)
    rows["copy"], rows["original"] = copies, documents.original[copies]
    _save(task.path("copies"), rows)
    return moved


def match(task: NearTask) -> int:
    """Find the best head for each key in a range of keys, and request its signature.

    For each other head of the same key, the number of the best head is written. These numbers are
    sorted by the block of that other head.
    """
    if task.path("beaten").exists():
        return 0
    heads = read_whole_part(task.paths("heads", task.step), task.number, task.count, _HEAD)
    order, begins = _group(heads["key"], heads["worth"])
    numbers = heads["number"][order]
    beaten = np.empty(int((~begins).sum()), _BEATEN)
    beaten["head"] = numbers[~begins]
    beaten["best"] = numbers[begins][np.cumsum(begins) - 1][~begins]
    beaten = beaten[np.argsort(beaten["head"])]
    _ask(task, beaten["best"], np.searchsorted(task.starts, beaten["head"], "right") - 1)
    write_parts(task.path("beaten"), np.searchsorted(beaten["head"], task.starts[1:]), [beaten])
    return 0


def answer(task: NearTask) -> int:
    """Write signatures and originals of those documents of this block that were requested."""
    if task.path("answers").exists():
        return 0
    documents = _Documents.open(task, task.step)
    questions = read_whole_part(
        task.paths("questions", task.step), task.number, task.count, _QUESTION
    )
    questions = questions[np.lexsort((questions["number"], questions["asker"]))]
    ends = np.searchsorted(questions["asker"], np.arange(task.count), side="right")

    def answers(begin: int) -> NDArray[Any]:
        part = questions["number"][begin : begin + _PAIRS]
        rows = np.empty(len(part), _ANSWER)
        rows["number"], rows["original"] = part, documents.original[part - documents.start]
        rows["signature"] = documents.signatures[:, part - documents.start].T
        return rows

    chunks = (answers(begin) for begin in range(0, len(questions), _PAIRS))
    write_parts(task.path("answers"), ends, chunks)
    return 0


def finish(task: NearTask) -> int:
    """Compare each copy with the last original of its chain; write the originals to partitions."""
    documents = _Documents.open(task, task.step)
    copies = np.flatnonzero(documents.original >= 0)
    documents.compare(task, task.step, copies, documents.original[copies])
    _write(task, documents)
    return 0


def _follow(task: NearTask, original: NDArray[np.int64]) -> int:
    """Replace originals that are copies by their own originals; return how many were replaced."""
    copies = np.flatnonzero(original >= 0)
    asked = original[copies]
    moved = 0
    for answers in read_part(
        task.paths("answers", task.step - 1), task.number, task.count, _ANSWER
    ):
        answers = answers[answers["original"] >= 0]
        if len(answers):
            place = np.minimum(np.searchsorted(answers["number"], asked), len(answers) - 1)
            further = answers["number"][place] == asked
            original[copies[further]] = answers["original"][place[further]]
            moved += int(further.sum())
    return moved


def _ask(task: NearTask, numbers: NDArray[np.int64], askers: NDArray[Any]) -> None:
    """Write requests for the signatures of documents ``numbers``, sorted by these documents' block.

    ``askers`` has, for each document, the number of the block that needs its signature.
    """
    order = np.argsort(numbers, kind="stable")
    rows = np.empty(len(numbers), _QUESTION)
    rows["number"], rows["asker"] = numbers[order], askers[order]
    write_parts(task.path("questions"), np.searchsorted(rows["number"], task.starts[1:]), [rows])


def _write(task: NearTask, documents: _Documents) -> None:
    for partition, begin, end in task.block.parts():
        if task.block.start + begin >= task.before:
            partition.write("original", documents.original[begin:end])


def _save(path: Path, rows: NDArray[Any]) -> None:
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
