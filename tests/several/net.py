"""Hosts of a test's own: network namespaces on a bridge. Needs root on Linux, and `ip`.

A host that dies falls silent first, so that those who talk to it get no FIN and no RST.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil
import pytest

from devstack.processes import end_with_parent

_PREFIX = "ushr"  # and the pid of whoever made it: what a killed run has left is found by that


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)


def _try_ip(*arguments: str) -> None:
    with contextlib.suppress(OSError):
        subprocess.run(["ip", *arguments], check=False, capture_output=True)


class Host:
    """One machine: a name, an address, and what runs on it."""

    def __init__(self, network: Network, name: str, number: int) -> None:
        self.name = name
        self.address = f"{network.prefix}.{number}"
        self.alive = True
        self._namespace = f"{network.tag}-{name}"
        self._link = f"{network.tag}n{number}"
        self._bridge = network.bridge
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        _ip("netns", "add", self._namespace)
        peer = ("type", "veth", "peer", "name", "eth0", "netns", self._namespace)
        _ip("link", "add", self._link, *peer)
        self.plug()
        for command in (
            ("addr", "add", f"{self.address}/24", "dev", "eth0"),
            ("link", "set", "eth0", "up"),
            ("link", "set", "lo", "up"),
        ):
            _ip("-n", self._namespace, *command)

    def start(
        self, name: str, command: Sequence[str], log: Path, environ: Mapping[str, str] | None = None
    ) -> subprocess.Popen[bytes]:
        """Run a command there, in a process group of its own, under this host's own name."""
        named = ["sh", "-c", 'hostname "$0" && exec "$@"', self.name, *command]
        with log.open("ab") as output:
            process = subprocess.Popen(
                ["ip", "netns", "exec", self._namespace, "unshare", "--uts", *named],
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        self._processes[name] = process
        return process

    def unplug(self) -> None:
        """Its link carries nothing any more; nobody is told."""
        _ip("link", "set", self._link, "nomaster")
        _ip("link", "set", self._link, "down")

    def plug(self) -> None:
        """The link is back."""
        _ip("link", "set", self._link, "master", self._bridge, "up")

    def deaf_to(self, other: Host) -> None:
        """Whatever this host answers to `other` is lost: for `other` it has fallen silent."""
        _ip("-n", self._namespace, "route", "add", "blackhole", f"{other.address}/32")

    def hears(self, other: Host) -> None:
        """The end of `deaf_to`."""
        _ip("-n", self._namespace, "route", "del", "blackhole", f"{other.address}/32")

    def die(self) -> None:
        """Silent from this moment on, and then nothing runs there any more."""
        self.unplug()
        self.end_processes()
        self.alive = False

    def cpu_s(self, name: str) -> float:
        """The processor time that a process and its children have used."""
        found = psutil.Process(self._processes[name].pid)
        times = [each.cpu_times() for each in (found, *found.children(recursive=True))]
        return sum(each.user + each.system for each in times)

    def ended(self) -> list[str]:
        """What should run there and does not."""
        return [name for name, each in self._processes.items() if each.poll() is not None]

    def end_processes(self) -> None:
        for process in self._processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        self._processes.clear()

    def remove(self) -> None:
        self.end_processes()
        _try_ip("link", "del", self._link)
        _try_ip("netns", "del", self._namespace)


class Network:
    """A bridge with hosts; 198.18.0.0/15 is kept for tests of networks (RFC 2544)."""

    def __init__(self) -> None:
        _remove_leftovers()
        self.tag = f"{_PREFIX}{os.getpid()}"
        self.bridge = f"{self.tag}b"
        self.prefix = f"198.18.{os.getpid() % 256}"
        self.hosts: dict[str, Host] = {}
        _ip("link", "add", self.bridge, "type", "bridge")
        _ip("addr", "add", f"{self.prefix}.1/24", "dev", self.bridge)
        _ip("link", "set", self.bridge, "up")

    @property
    def gateway(self) -> str:
        """The address of the test itself."""
        return f"{self.prefix}.1"

    def host(self, name: str) -> Host:
        """One more machine."""
        made = Host(self, name, number=11 + len(self.hosts))
        self.hosts[name] = made
        return made

    def deaf_to(self, other: Host) -> None:
        """What the test itself, and the load balancer with it, answers to `other` is lost."""
        _ip("route", "add", "blackhole", f"{other.address}/32")

    def hears(self, other: Host) -> None:
        """The end of `deaf_to`."""
        _ip("route", "del", "blackhole", f"{other.address}/32")

    def close(self) -> None:
        """Leave no process, no link and no namespace behind."""
        for host in self.hosts.values():
            host.remove()
            _try_ip("route", "del", "blackhole", f"{host.address}/32")
        _try_ip("link", "del", self.bridge)


def _remove_leftovers() -> None:
    """What a run has left that was killed; its processes have ended with it."""
    for kind in ("link", "netns"):
        listed = subprocess.run(["ip", "-brief", kind], check=True, capture_output=True, text=True)
        for name in re.findall(rf"^{_PREFIX}\d+[^\s@]*", listed.stdout, re.MULTILINE):
            digits = re.findall(r"\d+", name)[0]
            if not psutil.pid_exists(int(digits)):
                _try_ip(kind, "del", name)


def make_network() -> Network:
    """A network; where there can be none the test skips at home and fails in CI."""
    try:
        return Network()
    except (OSError, subprocess.CalledProcessError) as error:
        reason = f"no network namespaces: they need root on Linux, and `ip` ({error})"
        if os.environ.get("CI"):
            pytest.fail(reason)
        pytest.skip(reason)
