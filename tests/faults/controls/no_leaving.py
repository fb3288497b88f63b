"""An agent server whose agents do not say when they are leaving, or that they are deaf.

With threads as its executor, so that it is the process in which its jobs run.
"""

from __future__ import annotations

import sys

from dispatcher.domain.models import Dispatch
from worker_agent.__main__ import main
from worker_agent.departure import Departure, Told
from worker_agent.ending import Cause, Ending, People

tell = Departure.tell


async def tell_losses_only(
    self: Departure, ending: Ending, people: People, *, in_room: bool, dispatch: Dispatch | None
) -> Told:
    if ending.cause is Cause.LOST or not in_room:
        return await tell(self, ending, people, in_room=in_room, dispatch=dispatch)
    return Told.UNTOLD


if __name__ == "__main__":
    Departure.tell = tell_losses_only  # type: ignore[method-assign]
    sys.exit(main())
