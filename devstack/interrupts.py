"""The signals that stop the stack: SIGINT, SIGTERM and SIGHUP."""

import signal
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_signals() -> None:
    """Have the first of the signals raise `KeyboardInterrupt`; ignore those after it.

    They come in twos: a closed terminal sends SIGHUP and kills make, which makes the kernel send
    SIGTERM (`end_with_parent`).
    """

    def interrupt(*_: Any) -> None:
        ignore_signals()
        raise KeyboardInterrupt

    for number in _SIGNALS:
        signal.signal(number, interrupt)


def ignore_signals() -> None:
    """Ignore the signals from now on, so that the stack stops in order."""
    for number in _SIGNALS:
        # Not SIG_IGN: Python would complain about a signal that it has caught but not handled.
        signal.signal(number, lambda *_: None)
