"""Passes over partitions: tasks read the partitions, and the main process gets the results."""

import json
from collections import Counter

import pytest

from climbstream.builder.corpus import passes
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.passes import (
    batches,
    each,
    in_order,
    run_short,
    run_short_in_order,
    summed,
)
from climbstream.builder.pipeline import build
from climbstream.builder.settings import BuildSettings

SETTINGS = BuildSettings(
    clusters=3,
    micro_clusters=9,
    vocab_size=400,
    min_cluster_score={},
    min_document_score={},
    near_duplicates=None,
)


class Backwards:
    """An engine that ends tasks in the reverse of their order."""

    def run(self, function, tasks):
        """Yield each task with its result."""
        yield from reversed([(task, function(task)) for task in tasks])


def partitions_of(folder, count):
    return [Partition(folder / f"00000-{number:05d}") for number in range(count)]


@pytest.mark.parametrize("count", [1, 3, 2049])
def test_each_gives_results_in_the_order_of_the_corpus(tmp_path, count):
    partitions = partitions_of(tmp_path, count)
    found = [*each(Backwards(), partitions, lambda partition: partition.name)]
    assert found == [partition.name for partition in partitions]


@pytest.mark.parametrize("count", [1, 3, 2049, 5000])
def test_counts_are_summed_in_the_order_of_the_corpus_whatever_a_task_takes(tmp_path, count):
    partitions = partitions_of(tmp_path, count)
    found: Counter[str] = Counter()
    summed(Backwards(), partitions, lambda one: Counter([one.name]), Counter.update, found)
    assert list(found) == [partition.name for partition in partitions]
    assert set(found.values()) == {1}


def test_a_result_is_given_as_soon_as_those_before_it_are_there(serial):
    started = []
    results = in_order(serial, lambda task: started.append(task) or task, range(9))
    assert next(results) == 0
    assert started == [0]


def test_results_that_come_early_wait_on_disk_once_they_are_many(monkeypatch):
    held = []
    add = passes.EarlyResults.add

    def note(early, number, result):
        add(early, number, result)
        held.append((len(early._held), len(early._stored)))

    monkeypatch.setattr(passes.EarlyResults, "add", note)
    # The first task ends last, and all others wait for it.
    found = [*in_order(Backwards(), lambda task: {task: [task] * 100}, range(500))]
    assert found == [{task: [task] * 100} for task in range(500)]
    assert max(held) == (passes._HELD, 500 - passes._HELD)


@pytest.mark.parametrize(("count", "tasks"), [(5, 5), (2048, 1024), (10**6, 15_625)])
def test_a_task_takes_more_partitions_where_there_are_many(tmp_path, count, tasks):
    found = [*batches([Partition(tmp_path)] * count)]
    assert len(found) == tasks
    assert [batch.first for batch in found[:2]] == [0, len(found[0].partitions)]
    assert sum(len(batch.partitions) for batch in found) == count


@pytest.mark.parametrize(("count", "sent"), [(0, 0), (5, 5), (2049, 1025), (20_000, 5000)])
def test_short_tasks_are_sent_in_groups_where_there_are_many(count, sent):
    calls = []

    class Counting(Backwards):
        def run(self, function, tasks):
            """Count the tasks that are sent."""
            for task, result in super().run(function, tasks):
                calls.append(task)
                yield task, result

    def square(number):
        return number * number

    found = [*run_short_in_order(Counting(), square, range(count), count)]
    assert (found, len(calls)) == ([n * n for n in range(count)], sent)
    assert dict(run_short(Backwards(), square, range(count), count)) == dict(enumerate(found))


def test_the_process_that_plans_reads_nothing_of_documents(tmp_path, make_records, monkeypatch):
    """Tasks do it.

    Processes of the engine import the modules anew, so what is patched here holds for this one.
    """
    folder = tmp_path / "corpus"
    folder.mkdir()
    for number, record in enumerate(make_records(each=8)):
        (folder / f"{number:03d}.jsonl").write_text(json.dumps({**record, "license": "MIT"}) + "\n")
    looked = set()
    read = Partition.read

    def note(partition, name, **options):
        looked.add(name)
        return read(partition, name, **options)

    def refuse(*_):
        raise AssertionError("the process that plans reads documents")

    monkeypatch.setattr(Partition, "read", note)
    for name in ("columns", "take", "row_groups", "group_rows", "__len__"):
        monkeypatch.setattr(Partition, name, refuse)
    manifest = build([str(folder)], tmp_path / "shards", SETTINGS, workers=1)
    assert manifest.license == "MIT"
    assert looked == set()
