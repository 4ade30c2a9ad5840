"""A sample: the same for the same seed, and drawn once."""

from dataclasses import replace

import pytest

from climbstream.builder.corpus.document import Document
from climbstream.builder.corpus.partition import Partition
from climbstream.builder.corpus.sample import draw_sample
from climbstream.builder.settings import BuildSettings

SETTINGS = BuildSettings(sample=100)


class Refusing:
    """An engine that runs nothing."""

    def run(self, *_):
        """Fail."""
        raise AssertionError("a task is run")


@pytest.fixture
def partitions(tmp_path):
    found = [Partition(tmp_path / "units" / f"00000-{number:05d}") for number in range(5)]
    for number, partition in enumerate(found):
        partition.write_documents([Document(id="", text=f"{number} {row}") for row in range(60)])
    return found


def test_a_sample_that_was_drawn_is_read_again(tmp_path, serial, partitions):
    first = draw_sample(serial, partitions, tmp_path / "sample", SETTINGS)
    again = draw_sample(Refusing(), partitions, tmp_path / "sample", SETTINGS)
    assert first.documents == again.documents == 100
    assert first.texts() == again.texts()
    assert len({*again.texts()}) == 100


@pytest.mark.parametrize("change", [{"seed": 1}, {"sample": 101}])
def test_with_other_settings_another_sample_is_drawn(tmp_path, serial, partitions, change):
    first = draw_sample(serial, partitions, tmp_path / "sample", SETTINGS).texts()
    other = draw_sample(serial, partitions, tmp_path / "sample", replace(SETTINGS, **change))
    assert other.texts() != first
    assert len(other.texts()) == other.documents


def test_a_sample_of_other_partitions_is_another(tmp_path, serial, partitions):
    draw_sample(serial, partitions, tmp_path / "sample", SETTINGS)
    other = draw_sample(serial, partitions[:1], tmp_path / "sample", SETTINGS)
    assert {text.partition(" ")[0] for text in other.texts()} == {"0"}


def test_a_sample_whose_drawing_was_killed_is_drawn_anew(tmp_path, serial, partitions):
    whole = draw_sample(serial, partitions, tmp_path / "sample", SETTINGS).texts()
    (tmp_path / "sample" / "drawn.json").unlink()
    (tmp_path / "sample" / "0.parquet").unlink()
    assert draw_sample(serial, partitions, tmp_path / "sample", SETTINGS).texts() == whole
