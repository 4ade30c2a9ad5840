"""Names of clusters, from the labels that a corpus gives them.

A label may be any text. A name is a folder on any operating system, so it is short, has no
character that a system forbids, and differs from every other name in more than case. Labels are
sorted in natural order: ``cluster_10`` after ``cluster_9``.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import hash_bytes

MOST_CLUSTERS = 10_000
MOST_LABEL = 10_000
"""Most characters of a label; a longer one is a text."""
_MOST_BYTES = 100
"""Most bytes of a name: a file system allows 255, and file names hold more than this name."""
_FORBIDDEN = re.compile(r"[^\w .-]")
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\.|$)", re.IGNORECASE)
"""Names of devices on Windows, with anything after the dot."""
Key = tuple[tuple[str | tuple[int, str], ...], str]


def natural(text: str) -> Key:
    """Sort key of natural order; different texts have different keys.

    >>> sorted(["part_10", "part_9", "part", "part_09"], key=natural)
    ['part', 'part_09', 'part_9', 'part_10']
    """
    parts = re.split(r"([0-9]+)", text)
    return tuple(_number(part) if i % 2 else part for i, part in enumerate(parts)), text


def _number(digits: str) -> tuple[int, str]:
    """Sort key of a number of any length: an `int` of thousands of digits is slow, or refused."""
    digits = digits.lstrip("0")
    return len(digits), digits


def canonical(value: object) -> str | None:
    """Label as a string, a whole float as an integer; None: ``value`` is no label.

    >>> canonical(3.0), canonical("3"), canonical(" law"), canonical(2.5), canonical("")
    ('3', '3', 'law', None, None)
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, bytes):
        value = value.decode(errors="replace")
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else None
    if isinstance(value, str | int):
        return str(value).strip().encode(errors="backslashreplace").decode() or None
    return None


def cluster_names(labels: Iterable[str]) -> dict[str, str]:
    """Return the name of each label, in natural order: ``c03`` for 3, else the label itself.

    Where labels would have the same folder on some system, the first keeps its name, and the names
    of the others end with a part of their hash.

    >>> cluster_names(["10", "9"]), cluster_names(["law", "sci/fi"])
    ({'9': 'c09', '10': 'c10'}, {'law': 'law', 'sci/fi': 'sci_fi'})
    >>> cluster_names(["law", "Law", "con"])
    {'Law': 'Law', 'con': '_con', 'law': 'law-e2cf3310'}

    Raises:
        InvalidDataError: There are more than `MOST_CLUSTERS`.
    """
    ordered = sorted(set(labels), key=natural)
    if len(ordered) > MOST_CLUSTERS:
        some = ", ".join(label[:40] for label in ordered[:3])
        raise InvalidDataError(
            f"the rows name {len(ordered):,} clusters, {some} and so on; at most "
            f"{MOST_CLUSTERS:,} are possible. Name the column of the cluster with --cluster"
        )
    if all(re.fullmatch("0|[1-9][0-9]*", label) for label in ordered):
        width = max((len(label) for label in ordered if len(label) < _MOST_BYTES), default=0)
        return make_unique({label: f"c{label.zfill(max(2, width))}" for label in ordered})
    return make_unique({label: _portable(label) for label in ordered})


def _portable(label: str) -> str:
    """Return ``label`` as a folder name that every system allows."""
    name = _FORBIDDEN.sub("_", label)
    if name[0] in ". " or _RESERVED.match(name):
        name = f"_{name}"
    return f"{name}_" if name[-1] in ". " else name


def make_unique(names: Mapping[str, str]) -> dict[str, str]:
    """Return ``names`` by label, made short, and different even where case is lost.

    >>> make_unique({"a": "x y", "b": "X Y"})
    {'a': 'x y', 'b': 'X Y-4b2212e3'}
    """
    alike = defaultdict(list)
    for label, name in names.items():
        alike[_folded(name) if len(name.encode()) <= _MOST_BYTES else ""].append(label)
    # A label that is its own name keeps it; one with replaced characters does not.
    kept = {
        min(same, key=lambda label: names[label] != label): key
        for key, same in alike.items()
        if key
    }
    used = set(kept.values())
    return {
        label: name if label in kept else _marked(name, label, used)
        for label, name in names.items()
    }


def _marked(name: str, label: str, used: set[str]) -> str:
    """Shorten ``name``, and end it with as much of the hash of ``label`` as makes it new."""
    digest = hash_bytes(label.encode())
    for digits in range(8, len(digest) + 1, 8):
        beginning = name.encode()[: _MOST_BYTES - 1 - digits].decode(errors="ignore")
        marked = f"{beginning}-{digest[:digits]}"
        if _folded(marked) not in used:
            break
    used.add(_folded(marked))
    return marked


def _folded(name: str) -> str:
    """Name as systems compare it that ignore case and Unicode forms."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def table_folder(label: int | str) -> str:
    """Name of the folder of a cluster's tables, as in ClimbLab or a mirror of it."""
    return f"cluster_{label}" if isinstance(label, int) else f"cluster_id={label}"


def cluster_labels(names: Sequence[str]) -> tuple[int | str, ...]:
    """Labels from which an import makes ``names`` again: numbers, if they are numbers.

    >>> cluster_labels(["c01", "c20"]), cluster_labels(["law", "sea"])
    ((1, 20), ('law', 'sea'))
    """
    numbers = [re.fullmatch("c([0-9]+)", name) for name in names]
    labels = [int(match[1]) for match in numbers if match]
    if len(labels) == len(names) and [*cluster_names(map(str, labels)).values()] == [*names]:
        return tuple(labels)
    return tuple(names)
