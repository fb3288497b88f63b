"""The nginx proxy of deploy/nginx in front of a web process.

The configuration is the deployment's own, with the test's addresses and paths.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from devstack import PROJECT_ROOT
from tests.conftest import free_port, wait_until_answers
from tests.support.tls import Certificates, make_certificates

CONFIGURATION = PROJECT_ROOT / "deploy/nginx"
STOPS_WITHIN_S = 10
# Where nginx buffers requests and answers: Debian's folders belong to www-data.
_BUFFERS = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")


@dataclass(frozen=True, kw_only=True)
class Proxy:
    """The addresses of a running proxy: one with TLS, one without."""

    https_url: str
    http_url: str
    certificates: Certificates


def find_nginx() -> str:
    """Return the machine's nginx; without one the test fails in CI, and is skipped elsewhere."""
    path = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])
    found = shutil.which("nginx", path=path)
    if found:
        return found
    if os.environ.get("CI"):
        pytest.fail("CI needs nginx")
    pytest.skip("needs nginx (Debian: apt-get install nginx)")


@contextlib.contextmanager
def proxied(directory: Path, web_port: int, *, limit_conn: int = 2000) -> Iterator[Proxy]:
    """Run nginx with the configuration of deploy/nginx, in front of the web at `web_port`.

    `limit_conn` is how many open requests one address may have.
    """
    program = find_nginx()
    certificates = make_certificates(directory)
    https, http = free_port(), free_port()
    numbers = {"web": web_port, "https": https, "http": http, "limit_conn": limit_conn}
    write_configuration(directory, certificates, numbers)
    command = [program, "-p", str(directory), "-c", "nginx.conf", "-e", "error.log"]
    started = subprocess.Popen([*command, "-g", "daemon off;"])
    try:
        wait_until_answers(f"http://127.0.0.1:{http}/nothing-of-ours", within_s=30)
        yield Proxy(
            https_url=f"https://127.0.0.1:{https}",
            http_url=f"http://127.0.0.1:{http}",
            certificates=certificates,
        )
    finally:
        started.terminate()  # so that the master ends its workers
        started.wait(timeout=STOPS_WITHIN_S)


def write_configuration(
    directory: Path, certificates: Certificates, numbers: Mapping[str, int]
) -> None:
    """Write both files into `directory`, with the test's own ports and paths."""
    https, http = numbers["https"], numbers["http"]
    _write(
        directory / "usher.conf",
        {
            "server 127.0.0.1:8080;": f"server 127.0.0.1:{numbers['web']};",
            "listen 443 ": f"listen 127.0.0.1:{http};\n    listen 127.0.0.1:{https} ",
            "limit_conn usher_callers 2000;": f"limit_conn usher_callers {numbers['limit_conn']};",
            "/etc/nginx/usher.pem": str(certificates.certificate),
            "/etc/nginx/usher.key": str(certificates.key),
        },
    )
    buffers = "".join(f"    {name}_temp_path {directory / name};\n" for name in _BUFFERS)
    _write(
        directory / "nginx.conf",
        {
            "user www-data;": f"user {pwd.getpwuid(os.getuid()).pw_name};",
            "pid /run/nginx.pid;": f"pid {directory / 'nginx.pid'};",
            "/var/log/nginx/error.log": str(directory / "error.log"),
            "/var/log/nginx/access.log": str(directory / "access.log"),
            "    include /etc/nginx/conf.d/*.conf;\n": f"{buffers}    include usher.conf;\n",
        },
    )


def _write(target: Path, others: dict[str, str]) -> None:
    text = (CONFIGURATION / target.name).read_text()
    for stands, other in others.items():
        assert text.count(stands) == 1, f"{target.name} has {stands!r} {text.count(stands)} times"
        text = text.replace(stands, other)
    target.write_text(text)
