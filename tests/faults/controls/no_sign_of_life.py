"""An agent server whose jobs do not say that they live before they have connected.

With threads as its executor, so that it is the process in which its jobs run.
"""

from __future__ import annotations

import sys

from worker_agent.__main__ import main
from worker_agent.starting import SignOfLife


def say_nothing(_: SignOfLife) -> None: ...


if __name__ == "__main__":
    SignOfLife.start = say_nothing  # type: ignore[method-assign]
    sys.exit(main())
