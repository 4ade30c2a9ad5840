"""The errors of climbstream, and the exit code of the command line for each.

    ClimbError                1  climbstream failed in another way
    ├── UsageError            2  the call asks for something impossible
    │   └── OpenFilesError    2  this process may open no more files
    ├── InvalidDataError      3  a file, record or setting is not what it must be
    ├── IntegrityError        4  bytes differ from those that were written
    ├── RemoteError           5  a store, the Hub or a rank failed or did not answer
    ├── LockedError           6  another process works on this directory
    └── NoSpaceError          7  the disk is full

The number is the exit code. A message says what was asked for, what is possible, which item is
concerned, and the remedy, with numbers.
"""


class ClimbError(Exception):
    """Base of every error that climbstream raises on purpose."""

    exit_code = 1


class UsageError(ClimbError):
    """The call asks for something impossible: an argument, or several together, are invalid."""

    exit_code = 2


class OpenFilesError(UsageError):
    """This process may open no more files."""


class InvalidDataError(ClimbError):
    """A file, record or setting is not what it must be."""

    exit_code = 3


class IntegrityError(ClimbError):
    """Bytes differ from what was written: a hash, size or count does not match."""

    exit_code = 4


class RemoteError(ClimbError):
    """A store, the Hub or another rank failed, refused or did not answer."""

    exit_code = 5


class LockedError(ClimbError):
    """Another process is working on the same directory."""

    exit_code = 6


class NoSpaceError(ClimbError):
    """The disk has no room for what must be written."""

    exit_code = 7
