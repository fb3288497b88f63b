"""How do livekit-agents' own spans get into the trace of their session?

They are given a provider once per process. Who has set one, the program or livekit-agents itself
for LiveKit Cloud, keeps it.
"""

from __future__ import annotations

import os

from livekit.agents import telemetry
from opentelemetry.trace import ProxyTracerProvider

from dispatcher import tracing


def invite() -> None:
    """Have livekit-agents' spans exported where ours are; without what people and models say.

    That is stripped by livekit-agents, unless `LIVEKIT_TELEMETRY_ALLOW_PII` says otherwise.
    """
    provider = tracing.guests()
    if provider is not None and isinstance(telemetry.tracer._tracer_provider, ProxyTracerProvider):
        decided = "LIVEKIT_TELEMETRY_ALLOW_PII" in os.environ
        telemetry.set_tracer_provider(provider, allow_pii=None if decided else False)
