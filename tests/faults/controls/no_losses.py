"""An agent server that takes every end of an agent for the agent's own wish.

With threads as its executor, so that it is the process in which its jobs run.
"""

from __future__ import annotations

import sys
from typing import Any

from worker_agent import farewell
from worker_agent.__main__ import main
from worker_agent.ending import Cause, Ending


def own_wish(*_: Any, **__: Any) -> Ending:
    return Ending(cause=Cause.PROGRAM, reason="job crashed")


if __name__ == "__main__":
    for name in ("of_disconnect", "of_exception", "of_shutdown"):
        assert hasattr(farewell, name)
        setattr(farewell, name, own_wish)
    sys.exit(main())
