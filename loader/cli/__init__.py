"""The command line, ``climb``: the table of commands, exit codes, and the loader's commands."""
