"""The secrets of a stack."""

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from devstack.files import write_private

FLOWER_USER = "usher"
OPERATOR_USER = "operator"


def _secret(prefix: str = "") -> Any:
    return field(repr=False, default_factory=lambda: f"{prefix}{secrets.token_urlsafe(32)}")


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The secrets of one run directory, kept in it, so that clients survive a restart."""

    api_key: str = _secret("usk_")
    publishable_key: str = _secret("upk_")
    livekit_api_key: str = _secret("API")
    livekit_api_secret: str = _secret()
    redis_password: str = _secret()
    flower_password: str = _secret()
    operator_password: str = _secret()

    @property
    def api_key_sha256(self) -> str:
        """The digest of the API key, which the web process gets in place of the key."""
        return hashlib.sha256(self.api_key.encode()).hexdigest()

    @property
    def publishable_key_sha256(self) -> str:
        """The digest of the publishable key."""
        return hashlib.sha256(self.publishable_key.encode()).hexdigest()


def load_credentials(path: Path) -> Credentials:
    """Return the secrets kept in `path`; make and write the missing ones first."""
    kept = json.loads(path.read_text()) if path.exists() else {}
    credentials = Credentials(**kept)
    if asdict(credentials) != kept:
        write_private(path, json.dumps(asdict(credentials), indent=2) + "\n")
    return credentials
