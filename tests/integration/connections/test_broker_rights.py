"""Does Celery reach a Redis whose user has no more rights than docs/redis.md gives it?"""

from __future__ import annotations

import redis
from kombu import Connection

import dispatcher.connections.celery_broker  # noqa: F401  # its transports stand for redis:// in kombu
from tests.support.ownredis import OwnRedis

RIGHTS = ("~*", "&*", "+@all", "-@admin", "-@dangerous", "+info")


def test_a_broker_needs_no_right_to_say_client(own_redis: OwnRedis) -> None:
    with redis.Redis.from_url(own_redis.url) as admin:
        admin.execute_command("ACL", "SETUSER", "usher", "on", ">password", *RIGHTS)
    url = own_redis.url.replace("redis://", "redis://usher:password@")

    with Connection(url) as broker:
        broker.ensure_connection(max_retries=1, interval_start=0.1)
        queue = broker.SimpleQueue("a-queue")
        queue.put({"a": "message"})
        message = queue.get(timeout=5)
        message.ack()
        queue.close()

    assert message.payload == {"a": "message"}
