"""What the commands for a job print about its clusters."""

import json

import pytest

from climbstream.loader.cli.main import run as climb
from climbstream.loader.formats.clusters import ClusterInfo, save_clusters
from climbstream.loader.formats.mixture import Mixture
from climbstream.loader.weights.log import WeightsLog
from climbstream.loader.weights.request import LOG


@pytest.mark.parametrize("more", [[], ["c00=1"]])
def test_the_weights_of_a_run_have_the_words_of_its_clusters_if_they_are_known(
    tmp_path, capsys, more
):
    run, shards = tmp_path / "run", tmp_path / "shards"
    shards.mkdir()
    WeightsLog.open(run / LOG, write=True).append(Mixture.of({"c00": 1}), 0, "start")
    about = {"documents": 1, "tokens": 1, "bytes": 1, "quality": {}, "labels": {}}
    info = ClusterInfo(name="c00", terms=("sail", "reef"), samples=(), micro=(), **about)
    save_clusters(shards, [info])
    assert climb(["weights", str(run), *more]) == 0
    assert "c00      100.0000%" in capsys.readouterr().out
    opening = {"kind": "opening", "shards": str(shards), "max_epochs": {}}
    (run / "served.jsonl").write_text(json.dumps(opening) + "\n")
    assert climb(["weights", str(run), *more]) == 0
    assert "c00      sail, reef  100.0000%" in capsys.readouterr().out
