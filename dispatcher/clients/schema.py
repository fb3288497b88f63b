"""Schema of the file of clients, and its mistakes with their lines.

docs/clients.md describes the file for people. A wrong file is refused as a whole, with every
mistake that pydantic or Usher finds, its line and its reason; no value is repeated.
"""

from __future__ import annotations

import os
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from operator import itemgetter
from pathlib import Path
from typing import Annotated, Final

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
)

from dispatcher.clients.models import ApiKey, Client, KeyKind, LiveKitCredentials
from dispatcher.clients.private_files import read_file, read_secret
from dispatcher.clients.toml_lines import Loc, line_of
from dispatcher.domain import urls
from dispatcher.domain.models import Limits
from dispatcher.errors import ConfigurationError
from dispatcher.observability import redaction
from dispatcher.settings import ClientId, DispatcherSettings, Name, Placement, Sha256, load

MAX_LIVE_KEYS: Final = 2  # of each kind: the present one and its replacement
_ROOT: Final = ("clients",)
_OURS: Final = "Value error, "  # pydantic's prefix to the text of a ValueError


@dataclass
class Surroundings:
    """Sources of secrets, and the files that were read for them."""

    environ: Mapping[str, str]
    files: set[Path] = field(default_factory=set)
    resolve: bool = True  # false: check the form only; the secrets are on another machine
    allow_private: bool = False  # development: webhooks may go to private addresses


def _secret(value: object, info: ValidationInfo) -> object:
    """Return the secret that `env:NAME` or `file:/path` points to; refuse anything else."""
    if not isinstance(value, str) or not value.startswith(("env:", "file:/")):
        raise ValueError(
            'must be "env:NAME" or "file:/path": a secret does not stand in this file itself'
        )
    around = info.context
    assert isinstance(around, Surroundings)
    kind, _, place = value.partition(":")
    if not around.resolve:
        return value.ljust(32)  # long enough, and equal where the reference is equal
    if kind == "env":
        secret = around.environ.get(place, "")
        if not secret:
            raise ValueError(f"the environment variable {place} is not set")
        return secret
    around.files.add(Path(place))
    try:
        return read_secret(Path(place))
    except ConfigurationError as error:
        raise ValueError(str(error)) from None


def _named(value: object, info: ValidationInfo) -> object:
    """Return a LiveKit API key: no secret (every token shows it), but with the same sources."""
    if isinstance(value, str) and value.startswith(("env:", "file:/")):
        return _secret(value, info)
    return value


def _webhook_url(url: str, info: ValidationInfo) -> str:
    around = info.context
    assert isinstance(around, Surroundings)
    return urls.webhook_url(url, allow_private=around.allow_private)


Secret = Annotated[SecretStr, BeforeValidator(_secret)]


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


class KeyEntry(_Entry):
    """One `[[clients.<id>.keys]]`."""

    id: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,62}$")]
    kind: KeyKind
    sha256: Sha256 = Field(repr=False)
    created: datetime | date | None = None
    disabled: bool = False


class ClientEntry(_Entry):
    """One `[clients.<id>]`."""

    livekit_url: Annotated[str, AfterValidator(urls.livekit_url)]
    livekit_api_key: Annotated[Name, BeforeValidator(_named)]
    livekit_api_secret: Annotated[Secret, Field(min_length=32)]
    shared_livekit: bool = False
    agent_names: Annotated[list[Name], Field(min_length=1)]
    container: Annotated[str, Field(max_length=256)] = ""
    deadline_s: Annotated[float, Field(gt=0, le=600)] = 20.0
    delegates: bool = True
    delegates_metadata: bool = False
    origins: list[Annotated[str, AfterValidator(urls.origin)]] = []
    max_sessions: Annotated[int, Field(ge=1)] | None = None
    requests_per_minute: Annotated[int, Field(ge=1)] | None = None
    webhook_url: Annotated[str, AfterValidator(_webhook_url)] | None = None
    webhook_secret: Secret | None = None
    placement: Placement | None = None
    disabled: bool = False
    keys: list[KeyEntry] = []

    def client(self, client_id: str) -> Client:
        """Return the client for the rest of Usher."""
        return Client(
            client_id=client_id,
            keys=tuple(
                ApiKey(key_id=key.id, kind=key.kind, sha256=key.sha256, disabled=key.disabled)
                for key in self.keys
            ),
            livekit=LiveKitCredentials(
                url=self.livekit_url,
                api_key=self.livekit_api_key,
                api_secret=self.livekit_api_secret.get_secret_value(),
            ),
            agent_names=tuple(self.agent_names),
            container=self.container,
            deadline_s=self.deadline_s,
            delegates=self.delegates,
            delegates_metadata=self.delegates_metadata,
            origins=tuple(self.origins),
            limits=Limits(
                requests_per_minute=self.requests_per_minute or 0,
                max_sessions=self.max_sessions or 0,
            ),
            webhook_url=self.webhook_url or "",
            webhook_secret=self.webhook_secret.get_secret_value() if self.webhook_secret else "",
            placement=self.placement or "",
            disabled=self.disabled,
        )


class RegistryFile(_Entry):
    """The whole file."""

    # At least one: an empty file is a truncated one, and would lock all clients out.
    clients: Annotated[dict[ClientId, ClientEntry], Field(min_length=1)]


def parse(text: str, *, name: str, around: Surroundings) -> tuple[Client, ...]:
    """Return the clients that `text` describes; `name` is the file's, for the message.

    Raises:
        ConfigurationError: every mistake with its line and reason, without its value.
    """
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigurationError(f"{name}: {error}") from None
    try:
        found = RegistryFile.model_validate(data, context=around)
    except ValidationError as error:
        mistakes = [
            (_loc(item["loc"]), item["msg"].removeprefix(_OURS))
            for item in error.errors(include_url=False, include_context=False, include_input=False)
        ]
    else:
        mistakes = [*_key_mistakes(found), *_livekit_mistakes(found)]
        if not mistakes:
            return tuple(entry.client(client_id) for client_id, entry in found.clients.items())
    raise ConfigurationError(_message(name, text, mistakes))


def read(path: Path, *, files: set[Path]) -> tuple[Client, ...]:
    """Return the clients of the file at `path`; add the files of secrets to `files`.

    Raises like `read_file` and `parse`.
    """
    try:
        text = read_file(path)
    except ConfigurationError as error:
        raise ConfigurationError(f"USHER_CLIENTS_FILE: {error}") from None
    around = Surroundings(environ=os.environ, files=files, allow_private=allow_private())
    clients = parse(text, name=str(path), around=around)
    for client in clients:
        redaction.hide((client.livekit.api_secret, client.webhook_secret.removeprefix("whsec_")))
    return clients


def allow_private() -> bool:
    """Return True in development: webhooks may go to private addresses."""
    return load(DispatcherSettings).webhook_allow_private


def _key_mistakes(found: RegistryFile) -> Iterator[tuple[Loc, str]]:
    owners: dict[str, str] = {}
    for client_id, entry in found.clients.items():
        ids: set[str] = set()
        live: Counter[KeyKind] = Counter()
        for index, key in enumerate(entry.keys):
            loc: Loc = (*_ROOT, client_id, "keys", index)
            if key.id in ids:
                yield (*loc, "id"), "another key of this client has that id"
            if key.sha256 in owners:
                yield (*loc, "sha256"), f"client {owners[key.sha256]!r} has that key already"
            ids.add(key.id)
            owners[key.sha256] = client_id
            live[key.kind] += not key.disabled
            if not key.disabled and live[key.kind] == MAX_LIVE_KEYS + 1:
                yield loc, f"more than {MAX_LIVE_KEYS} live {key.kind} keys; retire one"


def _livekit_mistakes(found: RegistryFile) -> Iterator[tuple[Loc, str]]:
    """Yield the mistakes of clients that share a LiveKit server or secret.

    On one server each gets tokens for the other's rooms; with one secret it can make its own, and
    the other's webhooks.
    """
    servers: dict[object, str] = {}
    secrets: dict[object, str] = {}
    for client_id, entry in found.clients.items():
        secret = entry.livekit_api_secret.get_secret_value()
        for field_name, what, holders, held in (
            ("livekit_url", "LiveKit server", servers, urls.server(entry.livekit_url)),
            ("livekit_api_secret", "LiveKit secret", secrets, secret),
        ):
            other = holders.setdefault(held, client_id)
            if other == client_id:
                continue
            if not (entry.shared_livekit and found.clients[other].shared_livekit):
                yield (
                    (*_ROOT, client_id, field_name),
                    f"client {other!r} has that {what} too, and each could enter the other's "
                    "rooms; if they are one customer, set shared_livekit = true for both",
                )


def _loc(loc: Loc) -> Loc:
    # What pydantic appends to a location: for a wrong dictionary key, and for a type in a union.
    known = {*ClientEntry.model_fields, *KeyEntry.model_fields}
    keep = [part for part in loc[3:] if isinstance(part, int) or part in known]
    return (*loc[:3], *keep) if loc[2:3] != ("[key]",) else loc[:2]


def _message(name: str, text: str, mistakes: list[tuple[Loc, str]]) -> str:
    located = [(line_of(text, loc), loc, reason) for loc, reason in mistakes]
    return f"{name}: " + "; ".join(
        f"line {line}, {'.'.join(str(part) for part in loc)}: {reason}"
        for line, loc, reason in sorted(located, key=itemgetter(0))
    )
