"""When does a process trace, what does it cost when it does not, and what becomes of a span?

Tracing is a thing of a whole process, so each of these has one of its own.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from livekit.protocol.agent import Job

from devstack import PROJECT_ROOT
from dispatcher.domain.job_attributes import TRACEPARENT, job_attributes
from dispatcher.observability import tracing
from tests.support.collector import collecting
from tests.support.values import new_dispatch
from web.contract.participant_tokens import delegated_agents
from worker_agent.decisions import read_offer

PARENT = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"
UNSAMPLED = PARENT.removesuffix("01") + "00"
CONSOLE = {"OTEL_TRACES_EXPORTER": "console"}
BEGIN = """
import logging, sys, threading
logging.basicConfig(level="INFO")
from dispatcher.observability import tracing
tracing.start("usher-test")
PARENT, UNSAMPLED = sys.argv[1:]
"""


def ran(code: str, **environ: str) -> subprocess.CompletedProcess[str]:
    """What a process prints that begins like one of ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    return subprocess.run(
        [sys.executable, "-c", BEGIN + code, PARENT, UNSAMPLED],
        cwd=PROJECT_ROOT,
        env={**kept, **environ},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )


def spans(code: str, **environ: str) -> dict[str, dict[str, Any]]:
    """The spans that such a process exports, by name."""
    lines = ran(code, **(CONSOLE | environ)).stdout.splitlines()
    exported = [json.loads(line) for line in lines]
    return {span["name"]: span for span in exported}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, False),
        ({"OTEL_SERVICE_NAME": "usher"}, False),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}, True),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, True),
        ({"OTEL_TRACES_EXPORTER": "otlp"}, True),
        ({"OTEL_TRACES_EXPORTER": "console"}, True),
        ({"OTEL_TRACES_EXPORTER": "none"}, False),
        (
            {
                "OTEL_TRACES_EXPORTER": "none",
                "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318",
            },
            False,
        ),
        ({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "true"}, False),
    ],
)
def test_the_standard_variables_switch_it_on(
    environ: dict[str, str], wanted: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("OTEL_"):
            monkeypatch.delenv(name)
    for name, value in environ.items():
        monkeypatch.setenv(name, value)

    assert tracing.configured() is wanted


def test_without_them_opentelemetrys_sdk_is_not_loaded_and_no_thread_runs() -> None:
    code = """
with tracing.span("x", parent=PARENT) as span:
    tracing.happened("y", {}, parent=PARENT)
    with tracing.for_others(span):
        print([tracing.traceparent(span), tracing.on(), tracing.guests()])
print([name for name in sys.modules if name.startswith("opentelemetry.sdk.trace")])
print([thread.name for thread in threading.enumerate()])
"""
    assert ran(code).stdout.splitlines() == ["['', False, None]", "[]", "['MainThread']"]


@pytest.mark.parametrize(
    ("environ", "told"),
    [
        ({"OTEL_TRACES_EXPORTER": "carrier-pigeon"}, "OTEL_TRACES_EXPORTER=carrier-pigeon"),
        (
            {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"},
            "OTEL_EXPORTER_OTLP_PROTOCOL=http/json",
        ),
    ],
)
def test_a_wrong_setting_is_an_error_in_the_log_and_nothing_worse(
    environ: dict[str, str], told: str
) -> None:
    done = ran("print(tracing.on())", **environ)

    assert done.stdout == "False\n"
    (line,) = done.stderr.splitlines()
    assert line.startswith("ERROR:dispatcher.observability.tracing:no traces: ")
    assert told in line


def test_parts_events_and_failures_are_where_they_belong() -> None:
    found = spans("""
try:
    with tracing.span("whole", parent=PARENT, kind=tracing.SpanKind.CONSUMER, attributes={"a": 1}):
        with tracing.span("part"):
            tracing.happened("done", {"b": 2}, parent=PARENT)
        raise ValueError("the token is sesame")
except ValueError:
    pass
tracing.happened("alone", {"c": 3}, parent=PARENT, about={"d": 4})
with tracing.inside(tracing.begin("other", root=True)) as other:
    tracing.happened("elsewhere", {}, parent=PARENT)
    other.add_link(tracing.context(PARENT))
    other.end()
""")
    ours, above = "0x" + PARENT[3:35], "0x" + PARENT[36:52]
    whole, part, alone = found["whole"], found["part"], found["alone"]
    assert {span["context"]["trace_id"] for span in (whole, part, alone)} == {ours}
    assert (whole["parent_id"], alone["parent_id"]) == (above, above)
    assert part["parent_id"] == whole["context"]["span_id"]
    assert [event["name"] for event in part["events"]] == ["done"]
    assert alone["attributes"] == {"c": 3, "d": 4}
    assert whole["status"] == {"status_code": "ERROR"}
    assert whole["attributes"] == {"a": 1, "error.type": "ValueError"}
    assert "sesame" not in json.dumps(found)
    assert found["other"]["context"]["trace_id"] != ours
    assert [link["context"]["trace_id"] for link in found["other"]["links"]] == [ours]
    assert found["elsewhere"]["context"]["trace_id"] == ours
    assert found["other"]["resource"]["attributes"]["service.name"] == "usher-test"


def test_what_nothing_has_happened_in_is_not_kept() -> None:
    found = spans("""
with tracing.span("idle", parent=PARENT, lazy=True):
    pass
with tracing.span("busy", parent=PARENT, lazy=True):
    tracing.happened("news", {}, parent=PARENT)
with tracing.span("busy inside", parent=PARENT, lazy=True):
    with tracing.span("part"):
        pass
with tracing.span("not ours"):  # no trace to be a part of
    tracing.happened("nobody's", {}, parent="")
""")
    assert set(found) == {"busy", "busy inside", "part"}


def test_an_unsampled_trace_stays_so_and_goes_on_being_one() -> None:
    done = ran(
        """
with tracing.span("x", parent=UNSAMPLED) as span:
    tracing.happened("y", {}, parent=UNSAMPLED)
    print(tracing.traceparent(span))
""",
        **CONSOLE,
    )
    (printed,) = done.stdout.splitlines()
    assert printed.startswith(UNSAMPLED[:35])
    assert printed.endswith("-00")


def test_the_service_is_named_by_the_standard_variables_first() -> None:
    code = 'tracing.begin("x", root=True).end()'
    names = [
        spans(code, **environ)["x"]["resource"]["attributes"]["service.name"]
        for environ in (
            {"OTEL_SERVICE_NAME": "mine"},
            {"OTEL_RESOURCE_ATTRIBUTES": "service.name=also-mine,deployment.environment=test"},
        )
    ]
    assert names == ["mine", "also-mine"]


def test_a_librarys_spans_are_kept_as_parts_of_ours_only() -> None:
    found = spans("""
tracer = tracing.guests().get_tracer("library")
tracer.start_span("on its own").end()
with tracing.span("ours", parent=PARENT) as ours:
    with tracing.for_others(ours):
        tracer.start_span("guest").end()
""")
    assert set(found) == {"ours", "guest"}
    assert found["guest"]["parent_id"] == found["ours"]["context"]["span_id"]


@pytest.mark.parametrize("traceparent", ["", PARENT])
def test_the_trace_travels_with_our_other_ids_and_nothing_does_without_one(
    traceparent: str,
) -> None:
    new = new_dispatch(traceparent=traceparent)
    (agent,) = delegated_agents(new, requested_at_ms=1).agents
    attributes = dict(agent.attributes)
    assert attributes.get(TRACEPARENT, "") == traceparent
    assert (TRACEPARENT in attributes) is bool(traceparent)
    offer = read_offer(Job(id="AJ_1", agent_name="agent", attributes=attributes))
    assert offer.traceparent == traceparent
    same = job_attributes(new, request_type="delegated", requested_at_ms=1)
    assert attributes == same


def test_a_receiver_that_hangs_keeps_no_process_from_ending() -> None:
    with collecting() as collector:
        collector.hangs = True
        begun = time.monotonic()
        ran(
            'tracing.begin("x", root=True).end()',
            OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
            OTEL_EXPORTER_OTLP_TIMEOUT="45",
        )
        assert time.monotonic() - begun < 30
        assert collector.asked >= 1
