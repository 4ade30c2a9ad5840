"""Few: find languages with so few documents that their documents are not dropped for low scores."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from climbstream.builder.corpus.partition import Partition
from climbstream.builder.features.quality import ENGLISH
from climbstream.builder.language_codes import CODE, UNDETERMINED

from .reasons import stays

JUDGED_ALWAYS = (ENGLISH, CODE, UNDETERMINED)
"""Languages whose documents are always judged by scores, even if there are few of them."""
LEAST = 20
"""A language, or its script, must have at least this number of documents in the corpus. If neither
has, documents of the language are not dropped for low scores."""
_NONE: Mapping[str, Mapping[str, int]] = {}


def count_languages(partition: Partition) -> Counter[tuple[str, str]]:
    """Return the number of documents that stay, by language and script."""
    return Counter((str(a), str(b)) for a, b in partition.read("languages")[stays(partition)])


def languages_of_few(
    groups: Mapping[tuple[str, str], int], before: Mapping[str, Mapping[str, int]] = _NONE
) -> dict[tuple[str, str], int]:
    """Return those ``groups`` that have too few documents to be judged by scores.

    ``groups`` has the number of documents of each language and script. A language with few
    documents is judged if its script has enough documents. English and code are always judged,
    because the scores were tested on both. Documents of an undetermined language are also always
    judged.

    ``before`` has the numbers of documents from before an append, by ``language`` and by
    ``script``; these documents count, too.
    """
    languages, scripts = Counter(before.get("language")), Counter(before.get("script"))
    for (language, script), count in groups.items():
        languages[language] += count
        scripts[script] += count
    return {
        (language, script): count
        for (language, script), count in sorted(groups.items())
        if max(languages[language], scripts[script]) < LEAST and language not in JUDGED_ALWAYS
    }


def is_of_few(partition: Partition, groups: Mapping[tuple[str, str], int]) -> NDArray[np.bool_]:
    """Return which documents of a partition are in one of ``groups``, bool ``[n]``."""
    if not groups:
        return np.zeros(len(partition), np.bool_)
    return np.array([(str(a), str(b)) in groups for a, b in partition.read("languages")], np.bool_)
