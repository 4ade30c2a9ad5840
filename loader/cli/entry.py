"""The entry point of ``climb``; after its import, Ctrl-C and SIGTERM end ``climb`` quietly.

Quietly means without a traceback, even while the other modules of ``climb`` are still being
imported. Before the import of this module, Python itself starts, and no code of ours can catch a
signal.
"""

import os
import signal


def main() -> None:
    """Run ``climb`` with the arguments of this process, and exit."""
    from .main import main as run  # here, so that handlers are set before this import

    run()


# Handlers are set at import and not in `main`, so that they exist as early as possible. Only the
# command ``climb`` imports this module.
for _number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(_number) != signal.SIG_IGN:
        signal.signal(_number, lambda number, _: os._exit(128 + number))
