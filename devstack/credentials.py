"""The secrets of a stack."""

import hashlib
import json
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from devstack.files import write_private

FLOWER_USER = "usher"
OPERATOR_USER = "operator"


@dataclass(frozen=True, kw_only=True)
class Credentials:
    """The secrets of one run directory, kept in it, so that clients survive a restart."""

    api_key: str = field(repr=False)
    publishable_key: str = field(repr=False)
    livekit_api_key: str = field(repr=False)
    livekit_api_secret: str = field(repr=False)
    redis_password: str = field(repr=False)
    flower_password: str = field(repr=False)
    operator_password: str = field(repr=False)

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
    made = Credentials(
        api_key=f"usk_{secrets.token_urlsafe(32)}",
        publishable_key=f"upk_{secrets.token_urlsafe(32)}",
        livekit_api_key=f"API{secrets.token_hex(6)}",
        livekit_api_secret=secrets.token_urlsafe(32),
        redis_password=secrets.token_urlsafe(32),
        flower_password=secrets.token_urlsafe(32),
        operator_password=secrets.token_urlsafe(32),
    )
    merged = replace(made, **kept)  # an older version may have kept fewer
    if asdict(merged) != kept:
        write_private(path, json.dumps(asdict(merged), indent=2) + "\n")
    return merged
