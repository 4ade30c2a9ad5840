"""Few: languages with too few documents in the corpus to be judged by their form."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.features.languages import CODE, UNDETERMINED
from climbstream.builder.features.quality import ENGLISH

from .reasons import stays

_ALWAYS = (ENGLISH, CODE, UNDETERMINED)
LEAST = 20
"""Number of documents of a language, or of its script, from which on scores prune."""


def count_languages(partition: Partition) -> Counter[tuple[str, str]]:
    """Count the documents that stay by language and script."""
    return Counter((str(a), str(b)) for a, b in partition.read("languages")[stays(partition)])


def languages_of_few(groups: Mapping[tuple[str, str], int]) -> dict[tuple[str, str], int]:
    """Count the documents of each language and script with too few documents to judge.

    ``groups`` counts all documents that stay. A language of few documents is judged as its script
    is, if that has enough. English and code are always judged, as scores were measured on them;
    documents without a known language are judged too.
    """
    languages, scripts = Counter[str](), Counter[str]()
    for (language, script), count in groups.items():
        languages[language] += count
        scripts[script] += count
    return {
        (language, script): count
        for (language, script), count in sorted(groups.items())
        if max(languages[language], scripts[script]) < LEAST and language not in _ALWAYS
    }


def is_of_few(partition: Partition, groups: Mapping[tuple[str, str], int]) -> NDArray[np.bool_]:
    """Which documents of a partition are in one of ``groups``, ``[n]``."""
    if not groups:
        return np.zeros(len(partition), np.bool_)
    return np.array([(str(a), str(b)) in groups for a, b in partition.read("languages")], np.bool_)
