"""Which signals stop the stack?"""

import signal
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def interrupt_on_signals() -> None:
    """Have the first of the signals raise `KeyboardInterrupt`, and those after it do nothing.

    They come in twos: a closed terminal sends SIGHUP and kills make, whose death sends SIGTERM.
    """
    for number in _SIGNALS:
        signal.signal(number, _interrupt)


def ignore_signals() -> None:
    """Let nothing come between the stack and its good end."""
    for number in _SIGNALS:
        # Not SIG_IGN, by which Python complains of a signal that it has caught but not handled.
        signal.signal(number, _ignore)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    ignore_signals()
    raise KeyboardInterrupt


def _ignore(_number: int, _frame: FrameType | None) -> None:
    return
