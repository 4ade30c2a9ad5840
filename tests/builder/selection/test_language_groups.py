"""Language groups: good text of one language stays though its micro-cluster is junk of many."""

from dataclasses import dataclass

import numpy as np

from climbstream.builder.selection.language_groups import good_groups, is_in, sum_groups


@dataclass
class Judged:
    """A unit with languages, micro-clusters and scores."""

    arrays: dict

    def __len__(self):
        return len(self.arrays["micro"])

    def has(self, name):
        """Whether there is an array."""
        return name in self.arrays

    def read(self, name):
        """Return an array."""
        return self.arrays[name]


def test_good_text_of_one_language_is_told_from_junk_of_others_in_its_micro_cluster():
    languages = ["en"] * 6 + ["de"] * 6 + ["fr"] * 2 + ["en"] * 6
    overall = [5, 5, 5, 5, 5, 0] + [0] * 6 + [5] * 2 + [5] * 6
    unit = Judged(
        {
            "languages": np.array([(name, "Latn") for name in languages]),
            "micro": np.array([0] * 14 + [1] * 6),
            "scores": np.array([(score, 5, 5, 5) for score in overall], np.float32),
        }
    )
    groups = good_groups([sum_groups(unit, np.array([True, False]))], {"overall": 2})
    assert groups == {(0, "en")}  # fr has too few, and micro-cluster 1 is not pruned
    assert is_in(unit, groups).tolist() == [True] * 6 + [False] * 14
    assert not is_in(unit, set()).any()
