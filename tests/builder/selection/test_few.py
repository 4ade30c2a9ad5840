"""Few: a language of too few documents is not judged, unless its script has enough."""

from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest

from climbstream.builder.selection.few import (
    LEAST,
    count_languages,
    is_of_few,
    languages_of_few,
)


@dataclass
class Told:
    """A unit whose languages are told."""

    names: list

    def __len__(self):
        return len(self.names)

    def has(self, name):  # noqa: ARG002
        """Nothing was dropped."""
        return False

    def read(self, name):  # noqa: ARG002
        """Return languages and scripts."""
        return np.array(self.names, "U4").reshape(-1, 2)


@pytest.mark.parametrize(
    ("names", "few"),
    [
        ([("th", "Thai")] * 5, {("th", "Thai"): 5}),
        ([("th", "Thai")] * LEAST, {}),
        ([("sv", "Latn")] * 5 + [("de", "Latn")] * LEAST, {}),
        ([("en", "Latn"), ("code", "Latn"), ("und", "Zyyy")] * 2, {}),
        ([("uk", "Cyrl")] * 9 + [("ru", "Cyrl")] * 9, {("ru", "Cyrl"): 9, ("uk", "Cyrl"): 9}),
    ],
)
def test_a_language_is_judged_if_it_or_its_script_has_enough_documents(names, few):
    units = [Told(names[:4]), Told(names[4:])]
    assert languages_of_few(sum(map(count_languages, units), Counter())) == few
    found = np.concatenate([is_of_few(unit, few) for unit in units])
    assert found.tolist() == [name in few for name in names]


def test_documents_from_before_an_append_count():
    groups = {("de", "Latn"): 1, ("ja", "Jpan"): 1, ("th", "Thai"): 1}
    before = {"language": {"ja": LEAST - 1, "th": 3}, "script": {"Latn": LEAST}}
    assert languages_of_few(groups, before) == {("th", "Thai"): 1}
    assert languages_of_few(groups) == groups
