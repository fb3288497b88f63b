"""How soon do Celery's processes look for a broker that was away?"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from dispatcher.connections.celery_broker import AMQP, RETRY_S
from tests.conftest import free_port


def test_a_broker_that_is_away_is_tried_again_every_second_however_long_it_is() -> None:
    app = Celery(
        "test", broker=f"redis://127.0.0.1:{free_port()}/0", amqp=AMQP, set_as_current=False
    )
    pauses: list[float] = []

    with app.connection_for_read() as connection, pytest.raises(OperationalError):
        connection.ensure_connection(lambda _, pause: pauses.append(pause), 3)

    assert pauses == [RETRY_S] * 3
    assert RETRY_S <= 1


def test_every_process_of_ours_connects_so() -> None:
    command = "from dispatcher.celery import app; print(type(app.amqp).__module__)"
    ran = subprocess.run(
        [sys.executable, "-c", command],
        env={**os.environ, "REDIS_URL": "redis://127.0.0.1:1/0"},
        capture_output=True,
        text=True,
        check=True,
    )

    assert ran.stdout.strip() == "dispatcher.connections.celery_broker"
