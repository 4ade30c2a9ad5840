"""The result of DoReMi on shards is read with its types: a broken value is named."""

import json

import pytest

from climbstream.loader.core.errors import InvalidDataError
from climbstream.search.experiments.doremi_search import _read_result


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "expected object"),
        ({"mixture": {}, "scores": {"mixture": 3}}, r"scores\[...\]: expected object"),
        ({"mixture": {"weights": {"c00": "x"}}, "scores": {}}, "mixture: "),
    ],
)
def test_a_broken_result_of_doremi_is_named(tmp_path, value, words):
    path = tmp_path / "result.json"
    path.write_text(json.dumps(value))
    with pytest.raises(InvalidDataError, match=f"{path}.*{words}"):
        _read_result(path)
