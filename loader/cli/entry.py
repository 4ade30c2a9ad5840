"""The entry point of ``climb``, the first module of ours that is imported.

From its import on, Ctrl-C and SIGTERM end ``climb`` without a traceback, even while its other
modules are being imported. A signal that comes earlier, while Python itself starts, cannot be
caught.
"""

import os
import signal


def main() -> None:
    """Run ``climb`` with the arguments of this process, and exit."""
    from .main import main as run  # here, so that handlers are set before this import

    run()


# Handlers are set when this module is imported, not in `main`, so that they exist as early as
# possible. Only the command ``climb`` imports this module.
for _number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(_number) != signal.SIG_IGN:
        signal.signal(_number, lambda number, _: os._exit(128 + number))
