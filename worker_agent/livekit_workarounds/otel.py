"""Bring livekit-agents' own spans into the trace of their session.

For livekit-agents 1.8 (1.8.9, telemetry/traces.py `_DynamicTracer`:
https://github.com/livekit/agents/blob/main/livekit-agents/livekit/agents/telemetry/traces.py). They
get a provider once per process. Whether the program has set one, or livekit-agents itself for
LiveKit Cloud, is in `tracer._tracer_provider`; that one is kept.

Guard: with other names livekit-agents' spans are left out, and the log says so.
Remove when livekit-agents takes OpenTelemetry's global provider, or says whether one is set.
"""

from __future__ import annotations

import os

from livekit.agents import telemetry
from opentelemetry.trace import ProxyTracerProvider

from dispatcher.observability import tracing
from worker_agent.livekit_workarounds import unknown_release


def export_spans() -> None:
    """Have livekit-agents' spans exported where ours are; without what people and models say.

    That is stripped by livekit-agents, unless `LIVEKIT_TELEMETRY_ALLOW_PII` says otherwise.
    """
    provider = tracing.guests()
    if provider is None:
        return
    try:
        is_unset = isinstance(telemetry.tracer._tracer_provider, ProxyTracerProvider)
    except AttributeError:
        unknown_release.warn("livekit-agents", "its own spans are not exported")
        return
    if is_unset:
        decided = "LIVEKIT_TELEMETRY_ALLOW_PII" in os.environ
        telemetry.set_tracer_provider(provider, allow_pii=None if decided else False)
