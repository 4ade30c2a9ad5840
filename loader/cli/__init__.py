"""The command line, ``climb``: the table of all commands, and the commands of the loader."""
