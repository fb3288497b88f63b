"""Is a secret found that somebody has put into a file?"""

from __future__ import annotations

import subprocess
from base64 import urlsafe_b64encode
from hashlib import sha256
from pathlib import Path

import pytest

from devstack import PROJECT_ROOT

# Made up here, or the scan would find it in this file.
SECRET = urlsafe_b64encode(sha256(b"a made-up secret").digest()).decode().rstrip("=")


@pytest.mark.parametrize(
    "line",
    [
        'API_KEY = "usk_{}"',
        "livekit_api_secret: '{}'",
        "REDIS_URL=redis://usher:{}@redis.example:6379/0",
    ],
)
def test_a_secret_is_named_by_file_and_line(tmp_path: Path, line: str) -> None:
    path = tmp_path / "settings.py"
    path.write_text("first = 1\n" + line.format(SECRET) + "\n")
    scanned = subprocess.run(
        [PROJECT_ROOT / ".venv/bin/detect-secrets-hook", "--baseline", ".secrets.baseline", path],
        cwd=PROJECT_ROOT,
        capture_output=True,
        text=True,
    )
    assert scanned.returncode == 1
    assert f"{path}:2" in scanned.stdout
