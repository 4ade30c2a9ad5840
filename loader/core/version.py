"""The version of climbstream: pyproject.toml and all packages read it here."""

__version__ = "0.1.0"
