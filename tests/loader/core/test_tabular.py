"""What has rows is a frame, a CSV and a table of Markdown."""

import csv
import io

import pytest

from climbstream.loader import Mixture, ShardDirectory
from climbstream.loader.core.errors import UsageError
from climbstream.loader.core.tabular import Tabular
from climbstream.search import Search
from climbstream.search.experiments.run_table import read_runs


def test_a_mixture_is_a_frame_a_csv_and_a_table_with_the_largest_weight_first(tmp_path):
    mixture = Mixture.of({"c00": 0.25, "c01": 0.75})
    frame = mixture.to_frame()
    assert frame.columns.tolist() == ["cluster", "weight"]
    assert frame.to_dict("list") == {"cluster": ["c01", "c00"], "weight": [0.75, 0.25]}
    text = mixture.to_csv(tmp_path / "mixture.csv")
    assert text == (tmp_path / "mixture.csv").read_text() == "cluster,weight\nc01,0.75\nc00,0.25\n"
    assert mixture.to_markdown() == (
        "| cluster | weight |\n| --- | --- |\n| c01 | 0.75 |\n| c00 | 0.25 |"
    )


def test_clusters_are_a_frame(built):
    shards = ShardDirectory(built.directory)
    frame = shards.to_frame().set_index("cluster")
    assert frame.index.tolist() == shards.names
    assert frame["tokens"].sum() == shards.manifest.tokens
    assert frame["share"].sum() == pytest.approx(1)
    assert {"documents", "words", "overall"} <= {*frame.columns}


def test_trials_are_a_frame_and_what_climb_fit_reads(tmp_path):
    search = Search(["a", "b"], ["loss"], budget=16)
    while mixture := next(iter(search.ask()), None):
        search.tell(mixture, {"loss": 2 - mixture.weights["a"]})
    frame = search.log.to_frame()
    assert len(frame) == len(search.log.trials)
    assert (frame["w_a"] + frame["w_b"]).tolist() == pytest.approx([1] * len(frame))
    assert frame["loss"].tolist() == pytest.approx((2 - frame["w_a"]).tolist())
    search.log.to_csv(tmp_path / "runs.csv")
    table = read_runs((tmp_path / "runs.csv",), ["loss"], None)
    assert [trial.scores["loss"] for trial in table.trials] == frame["loss"].tolist()


def test_a_library_that_is_not_known_or_not_installed_is_named(monkeypatch):
    import sys

    mixture = Mixture.of({"c00": 1})
    with pytest.raises(
        UsageError, match="data frames of 'arrow' are not supported; choose one of pandas, polars"
    ):
        mixture.to_frame("arrow")
    monkeypatch.setitem(sys.modules, "polars", None)
    with pytest.raises(UsageError, match="polars is not installed; pip install polars"):
        mixture.to_frame("polars")


def test_polars_gets_the_same_rows():
    pytest.importorskip("polars")
    assert Mixture.of({"c00": 1}).to_frame("polars").rows() == [("c00", 1.0)]


def test_no_cell_breaks_a_table():
    class Rows(Tabular):
        def to_rows(self):
            return [{"name": "a|b\nc", "value": None, "text": 'x,"y"'}]

    assert Rows().to_markdown().splitlines()[2] == '| a\\|b c |  | x,"y" |'
    (row,) = csv.DictReader(io.StringIO(Rows().to_csv()))
    assert row == {"name": "a|b\nc", "value": "", "text": 'x,"y"'}
