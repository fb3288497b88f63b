"""Does a real scrape have what alert rules and dashboard ask for, by those names and labels?"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping

import httpx
from prometheus_client.parser import text_string_to_metric_families

from devstack.testing import RunningStack
from tests.monitoring import labels_named, metrics_named

from .session import Caller, end_rooms, wait_for

# What Prometheus itself adds to every series.
OF_PROMETHEUS = {"job", "instance"}


def scrape(stack: RunningStack) -> str:
    answer = httpx.get(f"{stack.web_url}/metrics", timeout=10, trust_env=False)
    assert answer.status_code == 200, answer.text
    return answer.text


def labels_of(text: str) -> Mapping[str, set[str]]:
    """Every metric by the name after its `# TYPE`, with the labels of its series."""
    found: dict[str, set[str]] = defaultdict(set)
    for family in text_string_to_metric_families(text):
        # The parser takes `_total` off a counter's name.
        name = f"{family.name}_total" if family.type == "counter" else family.name
        for sample in family.samples:
            found[name] |= sample.labels.keys()
    return found


def test_every_metric_and_label_that_is_asked_for_is_there(
    stack: RunningStack, caller: Caller
) -> None:
    answer = caller.post()
    caller.wait_for_state(answer["dispatch_id"], "joined", within_s=15)
    end_rooms(stack, answer["room_name"])

    def with_the_join() -> str | None:
        text = scrape(stack)
        return text if re.search(r"^usher_joins_total\S* [1-9]", text, re.MULTILINE) else None

    seen = wait_for("a scrape with the join in it", with_the_join, within_s=10)
    there = labels_of(seen)
    # Nobody has refused anything yet, so there is no series of it, but a line that says what it is.
    declared = set(re.findall(r"^# TYPE (\S+)", seen, flags=re.MULTILINE))
    assert metrics_named() - declared == set()
    wrong = {
        (name, label)
        for name, label in labels_named()
        if name in there and label not in there[name] | OF_PROMETHEUS | {"le"}
    }
    assert wrong == set()
