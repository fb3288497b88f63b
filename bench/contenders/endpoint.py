"""The endpoint of (c), (d) and (e): answer with a token and have an agent sent to the room."""

from __future__ import annotations

import os
import secrets
from typing import Annotated

from fastapi import Depends, Header, HTTPException
from pydantic import BaseModel, Field

from bench.contenders.task import token


class Wanted(BaseModel):
    """The request."""

    room_name: str = Field(default_factory=lambda: f"room-{secrets.token_urlsafe(16)}")
    participant_identity: str = Field(default_factory=lambda: f"user-{secrets.token_urlsafe(16)}")


class Session(BaseModel):
    """The answer."""

    server_url: str
    participant_token: str
    room_name: str
    participant_identity: str


def authorized(authorization: Annotated[str, Header()] = "") -> None:
    """Refuse a caller without a key."""
    if not secrets.compare_digest(authorization, f"Bearer {os.environ['USHER_BENCH_KEY']}"):
        raise HTTPException(401)


Authorized = Depends(authorized)


def session(wanted: Wanted) -> Session:
    """The token for the room."""
    return Session(
        server_url=os.environ["LIVEKIT_URL"],
        participant_token=token(wanted.room_name, wanted.participant_identity),
        room_name=wanted.room_name,
        participant_identity=wanted.participant_identity,
    )
