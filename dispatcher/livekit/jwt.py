"""Sign LiveKit access tokens: JWTs with HS256 (RFC 7515, 3).

PyJWT signs and reads them too, but checks each time whether the secret is a PEM or a JSON key,
which takes longer than the signing.
"""

from __future__ import annotations

import hmac
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from typing import Any

from pydantic_core import to_json


def _part(data: bytes) -> bytes:
    return urlsafe_b64encode(data).rstrip(b"=")


_HEADER = _part(b'{"alg":"HS256","typ":"JWT"}')


def signed(claims: Mapping[str, Any], secret: str) -> str:
    """Return the token with these claims."""
    message = b".".join((_HEADER, _part(to_json(claims))))
    return b".".join((message, _part(hmac.digest(secret.encode(), message, "sha256")))).decode()
