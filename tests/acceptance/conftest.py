"""Who uses the stack in these tests?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devstack.testing import RunningStack

from .session import Caller


@pytest.fixture(scope="session")
def caller(stack: RunningStack) -> Iterator[Caller]:
    """A backend with the stack's API key."""
    caller = Caller(stack)
    with caller.http:
        yield caller
