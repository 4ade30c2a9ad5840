"""The command ``climb``.

Names of commands to their modules, errors to exit codes, the loader's commands.
"""
