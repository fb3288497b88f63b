"""Does an agent server need no more rights for placed jobs than docs/hardening.md says?"""

from __future__ import annotations

import asyncio

import pytest
import redis

from dispatcher.errors import LedgerUnavailable
from dispatcher.ledger import placing
from dispatcher.ledger.async_client import AsyncLedger
from dispatcher.ledger.guarding import Guard
from dispatcher.ledger.pubsub import Wakeups
from dispatcher.settings import CommonSettings, load
from tests.support.ownredis import OwnRedis
from tests.support.values import WAIT_S, eventually

RIGHTS = ("+@all", "-@admin", "-@dangerous", "+info", "~usher:clock")
CHANNEL = "usher:jobs:server-1"


@pytest.mark.parametrize("allowed", [True, False])
async def test_jobs_are_taken_and_news_heard_with_the_rights_to_them_alone(
    own_redis: OwnRedis, monkeypatch: pytest.MonkeyPatch, allowed: bool
) -> None:
    rights = ("resetchannels", *(("~usher:jobs:*", "&usher:jobs:*") if allowed else ()))
    with redis.Redis.from_url(own_redis.url, decode_responses=True) as admin:
        admin.execute_command("ACL", "SETUSER", "agent", "on", ">password", *RIGHTS, *rights)
        # pragma: allowlist nextline secret
        url = own_redis.url.replace("redis://", "redis://agent:password@")
        monkeypatch.setenv("REDIS_URL", url)
        common = load(CommonSettings)
        admin.rpush(CHANNEL, "99999999999999 {}")
        async with AsyncLedger(common) as store:
            wakeups = Wakeups(common, Guard(store), patterns=(), channels=(CHANNEL,))
            async with wakeups.listen_on(CHANNEL) as news:
                if allowed:
                    await asyncio.wait_for(news.wait(), WAIT_S)  # the subscription itself
                    news.clear()
                    await eventually(lambda: admin.publish(CHANNEL, "job") == 1)
                    await asyncio.wait_for(news.wait(), WAIT_S)
                    assert await store.run(placing.take("server-1")) == ["{}"]
                else:
                    assert admin.publish(CHANNEL, "job") == 0
                    with pytest.raises(LedgerUnavailable, match="NOPERM"):
                        await store.run(placing.take("server-1"))
            await wakeups.aclose()
