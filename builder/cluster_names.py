"""Names of clusters, from the labels that a corpus gives them.

A label may be any text. The name of a cluster must be a valid folder name on any operating system.
So names are short, and have no characters that a system forbids. Two names never differ only in
letter case. Labels are sorted in natural order: ``cluster_10`` after ``cluster_9``.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.core.files import hash_bytes

MOST_CLUSTERS = 10_000
MOST_LABEL = 10_000
"""Maximum number of characters of a label; a longer value is not a label but a text."""
_MOST_BYTES = 100
"""Maximum number of bytes of a name. A file system allows 255 bytes, and file names contain more
than the name of the cluster."""
_FORBIDDEN = re.compile(r"[^\w .-]")
_RESERVED = re.compile(r"(con|prn|aux|nul|(com|lpt)[0-9¹²³])(\.|$)", re.IGNORECASE)
"""Names of Windows devices, alone or followed by a dot and any text."""
Key = tuple[tuple[str | tuple[int, str], ...], str]


def natural(text: str) -> Key:
    """Return a key that sorts texts in natural order; different texts have different keys.

    >>> sorted(["part_10", "part_9", "part", "part_09"], key=natural)
    ['part', 'part_09', 'part_9', 'part_10']
    """
    parts = re.split(r"([0-9]+)", text)
    return tuple(_number(part) if i % 2 else part for i, part in enumerate(parts)), text


def _number(digits: str) -> tuple[int, str]:
    """Return a sort key for ``digits``, the decimal digits of a number of any length.

    The key does not contain the number as an `int`, because Python converts a text of thousands of
    digits slowly or not at all.
    """
    digits = digits.lstrip("0")
    return len(digits), digits


def canonical(value: object) -> str | None:
    """Return ``value`` as the text of a label; None if ``value`` cannot be a label.

    A float that is a whole number is written as an integer.

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
    """Return the names of clusters by label, in natural order of the labels.

    If all labels are numbers, label 3 gets the name ``c03``. If not, the name is the label itself,
    changed where a system forbids it as a folder name. Some systems ignore letter case, so several
    names may stand for the same folder. Then one of the labels keeps its name, and part of the
    label's hash is added to each of the other names.

    >>> cluster_names(["10", "9"]), cluster_names(["law", "sci/fi"])
    ({'9': 'c09', '10': 'c10'}, {'law': 'law', 'sci/fi': 'sci_fi'})
    >>> cluster_names(["law", "Law", "con"])
    {'Law': 'Law', 'con': '_con', 'law': 'law-e2cf3310'}

    Raises:
        InvalidDataError: There are more than `MOST_CLUSTERS` labels.
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
    """Return ``label``, changed where necessary into a folder name that every system allows."""
    name = _FORBIDDEN.sub("_", label)
    if name[0] in ". " or _RESERVED.match(name):
        name = f"_{name}"
    return f"{name}_" if name[-1] in ". " else name


def make_unique(names: Mapping[str, str]) -> dict[str, str]:
    """Return ``names``, shortened, and changed so that no two are the same or differ only in case.

    >>> make_unique({"a": "x y", "b": "X Y"})
    {'a': 'x y', 'b': 'X Y-4b2212e3'}
    """
    alike = defaultdict(list)
    for label, name in names.items():
        alike[_folded(name) if len(name.encode()) <= _MOST_BYTES else ""].append(label)
    # Of several labels with the same name, a label that equals the name keeps it, rather than a
    # label in which characters were replaced.
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
    """Return ``name``, shortened, and with enough of the hash of ``label`` to make it unique.

    ``used`` contains the results of `_folded` for all names so far. The result for the new name is
    added to it.
    """
    digest = hash_bytes(label.encode())
    for digits in range(8, len(digest) + 1, 8):
        beginning = name.encode()[: _MOST_BYTES - 1 - digits].decode(errors="ignore")
        marked = f"{beginning}-{digest[:digits]}"
        if _folded(marked) not in used:
            break
    used.add(_folded(marked))
    return marked


def _folded(name: str) -> str:
    """Return a form of ``name`` in which differences of case and Unicode form are removed."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())


def table_folder(label: int | str) -> str:
    """Return the folder of a cluster's tables: ``cluster_3`` for 3, ``cluster_id=law`` for law."""
    return f"cluster_{label}" if isinstance(label, int) else f"cluster_id={label}"


def cluster_labels(names: Sequence[str]) -> tuple[int | str, ...]:
    """Return labels from which an import would make ``names``; the labels are numbers if possible.

    >>> cluster_labels(["c01", "c20"]), cluster_labels(["law", "sea"])
    ((1, 20), ('law', 'sea'))
    """
    numbers = [re.fullmatch("c([0-9]+)", name) for name in names]
    labels = [int(match[1]) for match in numbers if match]
    if len(labels) == len(names) and [*cluster_names(map(str, labels)).values()] == [*names]:
        return tuple(labels)
    return tuple(names)
