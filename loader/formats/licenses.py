"""Licences: the names of the licences that a document or a shard directory states."""

UNKNOWN = "unknown"
"""Licence of a document that states none."""
_NONE = frozenset({"", UNKNOWN, "noassertion", "none"})
"""What a document may have in place of a licence, in small letters; the last two are of SPDX."""
_LONGEST = 100
"""Maximum number of characters of a name. Some corpora state the whole text of a licence instead of
its name."""


def license_name(stated: str) -> str:
    r"""Return the licence that a document states, as a name on one line.

    It is `UNKNOWN` if ``stated`` is empty or, in any letter case, "unknown", "none" or
    "noassertion".

    >>> license_name(" CC  BY\n4.0 "), license_name(""), license_name("NOASSERTION")
    ('CC BY 4.0', 'unknown', 'unknown')
    """
    words = " ".join(stated.split())
    if len(words) > _LONGEST:
        return f"{words[:_LONGEST]}…"
    names = [UNKNOWN if name.casefold() in _NONE else name for name in words.split(", ")]
    return UNKNOWN if {*names} == {UNKNOWN} else ", ".join(names)


def split_licenses(name: str) -> list[str]:
    """Return the single licences in ``name``, which joins them by commas.

    >>> split_licenses("MIT, CC0-1.0")
    ['MIT', 'CC0-1.0']
    """
    # A name that ends with an ellipsis is the beginning of the text of a licence.
    return [name] if name.endswith("…") else name.split(", ")
