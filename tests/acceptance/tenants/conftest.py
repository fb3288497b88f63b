"""Which two clients are these tests about?"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .two import Tenant, two_tenants


@pytest.fixture(scope="package")
def tenants(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Tenant, Tenant]]:
    """acme and globex."""
    with two_tenants(tmp_path_factory.mktemp("two")) as both:
        yield both


@pytest.fixture(scope="package")
def acme(tenants: tuple[Tenant, Tenant]) -> Tenant:
    """On the LiveKit and the agent server that the stack itself starts."""
    return tenants[0]


@pytest.fixture(scope="package")
def globex(tenants: tuple[Tenant, Tenant]) -> Tenant:
    """On a LiveKit and an agent server of its own."""
    return tenants[1]
