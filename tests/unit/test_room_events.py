"""What if livekit-rtc's private names are others one day?"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from worker_agent.livekit_workarounds.ffi_events import narrow


def test_a_library_that_is_not_known_is_left_alone_with_a_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    unknown: Any = SimpleNamespace()

    narrow(unknown)

    assert "not known" in caplog.text
