"""Where ``climb`` begins: Ctrl-C is plain from here on, also while the command line is imported."""

import os
import signal


def main() -> None:
    """Run ``climb`` with the arguments of this process, and exit."""
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(128 + signal.SIGINT))
    from .main import main as run  # noqa: PLC0415 - what Ctrl-C may interrupt

    run()
