"""What stands in the deployment files? Read as their own programs read them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from devstack import PROJECT_ROOT

DEPLOY = PROJECT_ROOT / "deploy"
SYSTEMD = DEPLOY / "systemd"
CONTAINER = DEPLOY / "container"
KUBERNETES = DEPLOY / "kubernetes"
COMPOSE = CONTAINER / "compose.yaml"
# Of compose.yaml, and none of the Procfile's.
SERVERS = {"proxy", "redis", "livekit"}


class Unit:
    """A systemd unit: the last value of a key, and all values of one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = [
            line for line in path.read_text().splitlines() if line and not line.startswith("#")
        ]

    @property
    def process(self) -> str:
        """The Procfile's name of what it runs."""
        return self["ExecStart"].split()[-1]

    def __getitem__(self, key: str) -> str:
        return self.all(key)[-1]

    def all(self, key: str) -> list[str]:
        return [line.partition("=")[2] for line in self.lines if line.startswith(f"{key}=")]

    @property
    def environment(self) -> dict[str, str]:
        pairs = [pair for line in self.all("Environment") for pair in line.split()]
        return dict(pair.split("=", 1) for pair in pairs)


def units() -> dict[str, Unit]:
    """The services, by file name."""
    return {path.name: Unit(path) for path in sorted(SYSTEMD.glob("*.service"))}


def services() -> dict[str, dict[str, Any]]:
    """The services of compose.yaml that run the image."""
    listed: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return {name: service for name, service in listed.items() if name not in SERVERS}


def objects() -> list[dict[str, Any]]:
    """Every Kubernetes object."""
    paths = [path for path in sorted(KUBERNETES.glob("*.yaml")) if path.stem != "kustomization"]
    return [each for path in paths for each in yaml.safe_load_all(path.read_text())]


def deployments() -> dict[str, dict[str, Any]]:
    """The Deployments' pods (`spec.template.spec`), by their component."""
    return {
        each["metadata"]["labels"]["app.kubernetes.io/component"]: each["spec"]["template"]["spec"]
        for each in objects()
        if each["kind"] == "Deployment"
    }


def container_of(pod: dict[str, Any]) -> dict[str, Any]:
    """The pod's one container."""
    [container] = pod["containers"]
    found: dict[str, Any] = container
    return found


def environment_of(container: dict[str, Any]) -> dict[str, str]:
    """What the manifest itself sets."""
    return {pair["name"]: pair["value"] for pair in container.get("env", [])}


def probes_of(container: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """By their kind: startupProbe, readinessProbe, livenessProbe."""
    return {name: value for name, value in container.items() if name.endswith("Probe")}


def variables(path: Path) -> set[str]:
    """Names of environment variables that a file sets, in whatever notation."""
    found = re.findall(r"\b((?:USHER|LIVEKIT|REDIS|FLOWER|OTEL)_[A-Z0-9_]+)\b", path.read_text())
    return set(found)


def files() -> list[Path]:
    """Every file of deploy/ that sets something."""
    return [
        path
        for path in sorted(DEPLOY.rglob("*"))
        if path.is_file() and path.suffix != ".md" and "requirements" not in path.name
    ]
