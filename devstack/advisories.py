"""Check the pinned packages for published advisories.

pip-audit asks PyPI, else OSV. Neither can be reached from every network, and a mirror of PyPI may
answer without its advisories, which pip-audit takes for none. So each service is first asked about
a release that is known to be bad: a service that does not know that one is not used.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

from devstack import PROJECT_ROOT, StackError

REQUIREMENTS: Final = PROJECT_ROOT / "requirements-dev.txt"  # all of requirements.txt is in it
ACCEPTED: Final = PROJECT_ROOT / "accepted-advisories.txt"
SERVICES: Final[Mapping[str, Sequence[str]]] = {
    "PyPI": ("--vulnerability-service", "pypi"),
    "OSV": ("--vulnerability-service", "osv"),
}
# CVE-2020-28493 and others.
_KNOWN_BAD: Final = "jinja2==2.11.2"
_TIMEOUT_S: Final = 5
_AUDIT_S: Final = 300


def accepted_advisories(text: str) -> dict[str, str]:
    """Parse accepted advisories: id -> why it is accepted.

    Raises:
        StackError: a line has no reason.
    """
    found = {}
    for number, line in enumerate(text.splitlines(), start=1):
        name, _, reason = line.partition(" ")
        if name and not name.startswith("#"):
            if not reason.strip():
                raise StackError(f"{ACCEPTED.name}:{number}: say why {name} is accepted")
            found[name] = reason.strip()
    return found


def _ask(service: Sequence[str], requirements: Path, *more: str) -> list[dict[str, Any]] | None:
    """Return pip-audit's answer, a dict for each package; None when the service gave none."""
    command = [sys.executable, "-m", "pip_audit", *service, "--requirement", str(requirements)]
    options = ("--format", "json", "--progress-spinner", "off", "--timeout", str(_TIMEOUT_S))
    try:
        done = subprocess.run(
            [*command, "--disable-pip", *options, *more],
            capture_output=True,
            text=True,
            timeout=_AUDIT_S,
        )
        packages: list[dict[str, Any]] = json.loads(done.stdout)["dependencies"]
    except (subprocess.TimeoutExpired, ValueError):
        return None
    return packages


def _knows(service: Sequence[str]) -> bool:
    with TemporaryDirectory() as directory:
        probe = Path(directory) / "requirements.txt"
        probe.write_text(f"{_KNOWN_BAD}\n")
        answer = _ask(service, probe, "--no-deps")
    return any(package.get("vulns") for package in answer or ())


def findings(packages: Sequence[Mapping[str, Any]], accepted: Mapping[str, str]) -> list[str]:
    """Return a line for each advisory that is not accepted."""
    return [
        f"{package['name']} {package['version']}: {advisory['id']}, mended in "
        f"{', '.join(advisory['fix_versions']) or 'no release yet'}"
        for package in packages
        for advisory in package.get("vulns", ())
        if not {advisory["id"], *advisory.get("aliases", ())} & accepted.keys()
    ]


def audit(
    services: Mapping[str, Sequence[str]] = SERVICES,
    requirements: Path = REQUIREMENTS,
    accepted: Path = ACCEPTED,
) -> int:
    """Print the advisories; return 1 if there is one, 0 if there is none or no service answers."""
    known = accepted_advisories(accepted.read_text())
    for name, service in services.items():
        packages = _ask(service, requirements) if _knows(service) else None
        if packages is None:
            continue
        silent = [package["name"] for package in packages if "skip_reason" in package]
        unknown = f", which does not know {', '.join(silent)}" if silent else ""
        found = findings(packages, known)
        print(f"advisories: {len(found)} for {len(packages)} packages, by {name}{unknown}")
        print("".join(f"  {line}\n" for line in found), end="")
        return 1 if found else 0
    print(f"advisories: NOT CHECKED, no advisory service answers ({', '.join(services)})")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(audit())
    except StackError as error:
        sys.exit(f"usher: {error}")
