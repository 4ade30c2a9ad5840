"""The files of a data set on the Hub; each file is a source."""

from dataclasses import fields

from climbstream.loader.core.errors import RemoteError
from climbstream.loader.storage.hub import check_contact

_READ_ALIKE = ("json", "parquet")
"""Formats, by their names in `datasets`. climbstream reads the same records from these formats as
`datasets` does."""
_ANY = ("data_dir", "data_files", "description", "name", "version")
"""Settings of `datasets` that do not change how records are read. If any other setting differs from
its default, only `datasets` can read the records."""


def hub_files(name: str) -> list[str]:
    """Return the URLs of the files in the training split of ``hub:NAME`` or ``hub:NAME@CONFIG``.

    The list is empty if only `datasets` can read the records, because of their format, or because
    the card of the data set has settings for reading them.

    Raises:
        RemoteError: The Hub cannot be reached, or does not list the files.
    """
    try:
        check_contact()
    except RemoteError as error:
        raise RemoteError(f"{name} cannot be read: cannot be reached; {error}") from None
    import datasets  # noqa: PLC0415 - the import takes seconds, and files do not need it

    repository, _, config = name.removeprefix("hub:").partition("@")
    try:
        builder = datasets.load_dataset_builder(repository, config or None)
    except Exception as error:  # errors of the network, the card, or a script that may not run
        raise RemoteError(f"{name} cannot be read: {error}") from None
    settings = builder.config
    plain = all(
        getattr(settings, field.name) == field.default
        for field in fields(settings)
        if field.name not in _ANY
    )
    if not plain or type(builder).__module__.rpartition(".")[2] not in _READ_ALIKE:
        return []
    return [str(url) for url in (settings.data_files or {}).get("train", [])]
