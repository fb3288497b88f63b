"""Ports are the ones asked for, or one line says what to do."""

import socket
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from devstack import StackError
from devstack.ports import LOOPBACK, PORT_VARIABLES, choose_ports

DEFAULT_WEB_PORT = 8080
ANY_PORTS = dict.fromkeys(PORT_VARIABLES, "0")


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server((LOOPBACK, 0)) as listener:
        yield listener.getsockname()[1]


def test_a_port_that_is_asked_for_is_used() -> None:
    asked = choose_ports(ANY_PORTS)

    assert choose_ports(ANY_PORTS | {"USHER_WEB_PORT": str(asked.web)}).web == asked.web


def test_zero_takes_free_ports_that_all_differ() -> None:
    ports = choose_ports(ANY_PORTS)

    tcp_ports = [
        ports.web,
        ports.redis,
        ports.livekit,
        ports.livekit_tcp,
        ports.flower,
        ports.agent,
    ]
    assert len(set(tcp_ports)) == len(tcp_ports)
    assert all(tcp_ports)
    assert ports.livekit_udp_start < ports.livekit_udp_end


def test_a_port_in_use_is_named_with_its_variable(busy_port: int) -> None:
    environ = ANY_PORTS | {"USHER_FLOWER_PORT": str(busy_port)}

    with pytest.raises(StackError, match=rf"port {busy_port} is in use.*USHER_FLOWER_PORT"):
        choose_ports(environ)


def test_two_ports_that_are_the_same_are_both_named() -> None:
    free = choose_ports(ANY_PORTS).web
    environ = ANY_PORTS | {"USHER_WEB_PORT": str(free), "USHER_AGENT_PORT": str(free)}

    with pytest.raises(StackError, match=f"USHER_AGENT_PORT and USHER_WEB_PORT are both {free}"):
        choose_ports(environ)


def test_a_busy_port_that_was_asked_for_is_never_moved(busy_port: int) -> None:
    environ = ANY_PORTS | {"USHER_WEB_PORT": str(busy_port)}

    with pytest.raises(StackError, match="USHER_WEB_PORT"):
        choose_ports(environ, move_busy_defaults=True)


def test_a_busy_default_gives_way_where_that_is_wanted() -> None:
    environ = {name: "0" for name in PORT_VARIABLES if name != "USHER_WEB_PORT"}

    with ExitStack() as held:
        # Where this fails something else has the port, which is then as busy as it should be.
        with suppress(OSError):
            held.enter_context(socket.create_server((LOOPBACK, DEFAULT_WEB_PORT)))
        assert choose_ports(environ, move_busy_defaults=True).web != DEFAULT_WEB_PORT


@pytest.mark.parametrize("value", ["", "http", "-1", "65536", "80.5"])
def test_a_value_that_is_no_port_is_refused(value: str) -> None:
    with pytest.raises(StackError, match=r"USHER_REDIS_PORT=.* is no port"):
        choose_ports(ANY_PORTS | {"USHER_REDIS_PORT": value})


def test_a_udp_range_upside_down_is_refused() -> None:
    environ = ANY_PORTS | {
        "USHER_LIVEKIT_UDP_PORT_START": "53000",
        "USHER_LIVEKIT_UDP_PORT_END": "52000",
    }

    with pytest.raises(StackError, match="USHER_LIVEKIT_UDP_PORT_START=53000"):
        choose_ports(environ)
