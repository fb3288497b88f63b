"""Who uses the stack in these tests?"""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.support.nginx import proxied
from tests.support.stacks import RunningStack

from .session import Caller


@pytest.fixture(scope="session")
def caller(stack: RunningStack) -> Iterator[Caller]:
    """A backend with the stack's API key."""
    caller = Caller(stack)
    with caller.http:
        yield caller


@pytest.fixture(scope="module", params=["direct", "nginx"])
def door(
    request: pytest.FixtureRequest, stack: RunningStack, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """Where callers reach the stack's web: by itself, and through the proxy of deploy/nginx."""
    if request.param == "direct":
        yield stack.web_url
        return
    port = urlsplit(stack.web_url).port
    assert port
    with proxied(tmp_path_factory.mktemp("nginx"), port) as proxy:
        yield proxy.http_url
