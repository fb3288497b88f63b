"""How are the image's processes run, and what do their probes say?

Each is started by the image's entry point, with its environment and nothing else, and stopped as an
engine does it.
"""

from __future__ import annotations

import hashlib
import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import httpx
import psutil

from tests.conftest import LiveKitServer, free_port

from .image import INSTALLED_AT, Stage
from .manifests import container_of, deployments, probes_of


class Containers:
    """The image's processes, each in a container of its own as far as that goes here."""

    def __init__(self, image: Stage, directory: Path, redis_url: str, lk: LiveKitServer) -> None:
        self.image = image
        self.directory = directory
        self.ports = {name: free_port() for name in ("web", "flower", "agent")}
        # The image's and the deployment's own, and nothing of the test's.
        here = str(image.path(INSTALLED_AT))
        self.environ = {
            **{name: value.replace(INSTALLED_AT, here) for name, value in image.environ.items()},
            "REDIS_URL": redis_url,
            "LIVEKIT_URL": lk.url,
            "LIVEKIT_API_KEY": lk.api_key,
            "LIVEKIT_API_SECRET": lk.api_secret,
            "USHER_API_KEY_SHA256": hashlib.sha256(b"key").hexdigest(),
            "USHER_WEB_PORT": str(self.ports["web"]),
            "USHER_AGENT_PORT": str(self.ports["agent"]),
            "USHER_AGENT_DRAIN_S": "1",
            "USHER_AGENT_IDLE_PROCESSES": "1",
            "FLOWER_PORT": str(self.ports["flower"]),
            "FLOWER_BASIC_AUTH": f"operator:{secrets.token_hex(16)}",
        }

    def own(self, name: str) -> dict[str, str]:
        """The environment of one of them."""
        tmp = self.directory / f"{name}-tmp"
        tmp.mkdir(exist_ok=True)
        alive = str(tmp / "alive")
        # Each has a file system of its own, of which only /tmp may be written to.
        files = {"HOME": str(tmp), "TMPDIR": str(tmp), "USHER_ALIVE_FILE": alive}
        return {**self.environ, **files, "FLOWER_DB": str(tmp / "history/tasks")}

    def popen(self, name: str) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("wb") as output:
            return subprocess.Popen(
                [str(self.image.path(self.image.entrypoint[0])), name],
                cwd=self.image.path(self.image.workdir),
                env=self.own(name),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    @contextmanager
    def running(self, name: str) -> Iterator[subprocess.Popen[bytes]]:
        """Stopped in the end as an engine does it, and that was enough."""
        process = self.popen(name)
        started: list[psutil.Process] = []
        try:
            yield process
            started = psutil.Process(process.pid).children(recursive=True)
            process.terminate()
            assert process.wait(timeout=40) == 0, self.log(name)
        finally:
            if process.poll() is None:
                started = psutil.Process(process.pid).children(recursive=True)
            process.kill()
            process.wait()
            for each in started:
                with suppress(psutil.NoSuchProcess):
                    each.kill()

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text()

    def alive(self, name: str, *seconds: str) -> bool:
        """What the probe of that process says."""
        ran = subprocess.run(
            [str(self.image.path("deploy/alive")), *seconds], env=self.own(name), timeout=10
        )
        return ran.returncode == 0

    def answers(self, name: str, path: str) -> int:
        """The status of an HTTP probe; 0: none."""
        try:
            return httpx.get(
                f"http://127.0.0.1:{self.ports[name]}{path}", timeout=5, trust_env=False
            ).status_code
        except httpx.HTTPError:
            return 0

    def probe(self, name: str, kind: str) -> bool:
        """A probe of the Kubernetes manifest, carried out."""
        probe = probes_of(container_of(deployments()[name]))[kind]
        if "exec" in probe:
            assert probe["exec"]["command"] == [f"{INSTALLED_AT}/deploy/alive"]
            return self.alive(name)
        return self.answers(name, probe["httpGet"]["path"]) == 200
