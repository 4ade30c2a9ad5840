"""The version of climbstream; pyproject.toml and all packages read it from this file."""

__version__ = "0.1.0"
