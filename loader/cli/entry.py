"""The entry point of ``climb``: once imported, Ctrl-C and SIGTERM end ``climb`` without traceback.

Signals are caught even while the other modules of ``climb`` are imported. Only before the import of
this module, while Python itself starts, can no code of ours catch a signal.
"""

import os
import signal


def main() -> None:
    """Run ``climb`` with the arguments of this process, and exit."""
    from .main import main as run  # here, so that a signal during this import has a handler

    run()


# Handlers are set at import and not in `main`, so that they exist as early as possible. Only the
# command ``climb`` imports this module.
for _number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(_number) != signal.SIG_IGN:
        signal.signal(_number, lambda number, _: os._exit(128 + number))
