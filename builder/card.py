"""Card: the README of a data set, whose YAML metadata says its licence.

The format is that of the Hugging Face Hub: metadata between two lines ``---`` at the beginning.
What is ours stands under the key ``climbstream``: the size of the vocabulary and the token that
ends a document, which the rows of a clustered corpus do not say.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import fsspec
import yaml

from climbstream.loader.errors import InvalidDataError

CARD = "README.md"


@dataclass(frozen=True, slots=True, kw_only=True)
class Card:
    """What a card says of a data set."""

    licenses: tuple[str, ...] = ()
    ours: dict[str, Any] = field(default_factory=dict)
    """What `climb export` noted, if it wrote the card."""

    @classmethod
    def parse(cls, text: str, name: str) -> Self:
        """Read the metadata of the card ``name``; a card without any says nothing.

        Raises:
            InvalidDataError: The metadata cannot be read.
        """
        opening, *rest = text.removeprefix("\ufeff").split("\n---", 1)
        if not opening.startswith("---") or not rest:
            return cls()
        try:
            value = yaml.safe_load(opening[3:]) or {}
        except yaml.YAMLError as error:
            said = " ".join(str(error).split())
            raise InvalidDataError(f"{name}: its metadata is not YAML: {said}; mend it") from None
        if not isinstance(value, dict):
            raise InvalidDataError(f"{name}: its metadata is no mapping; mend it")
        ours = value.get("climbstream")
        ours = ours if isinstance(ours, dict) else {}
        named = value.get("license")
        named = named if isinstance(named, list) else [named]
        named = [value.get("license_name", one) if one == "other" else one for one in named]
        licenses = {str(one).casefold(): str(one) for one in [*named, ours.get("license")] if one}
        return cls(licenses=tuple(licenses.values()), ours=ours)


def read_beside(folder: str, name: str) -> bytes | None:
    """Read the file ``name`` in ``folder``, a path or URL; None: there is none."""
    system, place = fsspec.core.url_to_fs(f"{folder}/{name}")
    if not system.exists(place):
        return None
    data: bytes = system.cat_file(place)
    return data


def write_card(title: str, metadata: Mapping[str, Any], body: str) -> bytes:
    """Return the bytes of a card."""
    head = yaml.safe_dump(dict(metadata), sort_keys=False, allow_unicode=True)
    return f"---\n{head}---\n\n# {title}\n\n{body}\n".encode()
