"""The entry point of ``climb``: from here on Ctrl-C and SIGTERM end it, also during imports.

Before this module is imported, Python itself is starting, and no code can catch a signal.
"""

import os
import signal


def main() -> None:
    """Run ``climb`` with the arguments of this process, and exit."""
    from .main import main as run  # what a signal may interrupt

    run()


# At import and not in `main`, so that a signal finds its handler as early as possible. Only the
# command imports this module.
for _number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(_number) != signal.SIG_IGN:
        signal.signal(_number, lambda number, _: os._exit(128 + number))
