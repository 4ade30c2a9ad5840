"""Values with a version: what `to_json` wrote is read by the same version, or refused."""

from typing import Any

from .errors import InvalidDataError


def check_version(value: Any, version: int, what: str) -> dict[str, Any]:
    """Return the fields of ``value``, JSON of a ``what``, without their version.

    Raises:
        InvalidDataError: It is no object, or of another version.
    """
    if not isinstance(value, dict) or "version" not in value:
        raise InvalidDataError(f"this is no {what}: it is no object with a version")
    fields = dict(value)
    if (found := fields.pop("version")) != version:
        raise InvalidDataError(f"the {what} has version {found}; this climbstream reads {version}")
    return fields
