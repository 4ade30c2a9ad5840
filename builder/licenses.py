"""Licences: how they are named, and which documents a build keeps by their licences.

A document that states no licence, or ``NOASSERTION`` or ``NONE``, counts as ``unknown``. A document
may state several licences, joined by commas.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from climbstream.loader.core.errors import InvalidDataError
from climbstream.loader.formats.licenses import UNKNOWN, license_name

OTHERS = "others"
"""Name under which rare licences are counted together."""
NOT = "!"
"""Prefix, in settings, of a licence whose documents are left out."""
_LISTED = 10
"""Maximum number of licences that `license_line` names."""


def license_line(names: Sequence[str], *, more: bool = False) -> str:
    """Return the first `_LISTED` of ``names`` on one line; "unknown" if there are none.

    ``more`` says that there are further licences, which are not in ``names``.

    >>> license_line(["MIT", "CC0-1.0"]), license_line([str(n) for n in range(12)])[-13:]
    ('MIT, CC0-1.0', ' 9 and 2 more')
    """
    rest = max(len(names) - _LISTED, 0) + more
    least = "at least " if more else ""
    end = f" and {least}{rest} more" if rest else ""
    return ", ".join(names[:_LISTED]) + end or UNKNOWN


def check_licenses(names: Sequence[str]) -> None:
    """Check that ``names`` are all licences to keep, or all licences to leave out (``!NAME``).

    Raises:
        InvalidDataError: ``names`` has licences of both kinds, or an empty name.
    """
    left_out = [name for name in names if name.startswith(NOT)]
    if any(not name.removeprefix(NOT).strip() for name in names):
        raise InvalidDataError(
            "licenses has an empty name; write unknown for documents without a licence"
        )
    if left_out and len(left_out) < len(names):
        kept = next(name for name in names if not name.startswith(NOT))
        raise InvalidDataError(
            f"licenses names {kept} to keep and {left_out[0]} to leave out; name only licences to "
            f"keep, or only licences to leave out, each after a {NOT}"
        )


def is_kept(stated: Sequence[str], names: Sequence[str]) -> NDArray[np.bool_]:
    """Return which documents are kept, bool ``[n]``; ``stated`` has the licences of each document.

    ``names`` are either licences to keep or, each after a ``!``, licences to leave out. Letter case
    makes no difference. A document with several licences is kept if all of them are to be kept, or
    if none of them is to be left out.
    """
    listed = {_folded(name.removeprefix(NOT)) for name in names}
    leaves_out = any(name.startswith(NOT) for name in names)
    keeps: dict[str, bool] = {}
    for one in set(stated):
        # The whole text is looked up first, because the name of one licence may contain a comma.
        whole = _folded(one) in listed
        parts = [_folded(part) in listed for part in one.split(", ")]
        keeps[one] = not (whole or any(parts)) if leaves_out else whole or all(parts)
    return np.array([keeps[one] for one in stated], np.bool_)


def _folded(stated: str) -> str:
    return license_name(stated).casefold()
