"""Do Celery and Flower get the TLS of `REDIS_URL` as they take it, and Sentinels as they are?"""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from dispatcher.connections.redis_url import (
    BySentinel,
    address,
    by_sentinel,
    check,
    without_tls_options,
)

TLS = "rediss://usher:p%40ss@redis.example:6380/0"  # pragma: allowlist secret


@pytest.mark.parametrize(
    ("url", "plain", "options"),
    [
        ("redis://:pw@127.0.0.1:6379/0", "redis://:pw@127.0.0.1:6379/0", None),
        (TLS, TLS, {"ssl_cert_reqs": ssl.CERT_REQUIRED}),
        (
            f"{TLS}?ssl_cert_reqs=none&ssl_check_hostname=false",
            TLS,
            {"ssl_cert_reqs": ssl.CERT_NONE, "ssl_check_hostname": False},
        ),
        (
            f"{TLS}?ssl_ca_certs=%2Fetc%2Fca%20s.pem&health_check_interval=5",
            f"{TLS}?health_check_interval=5",
            {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/etc/ca s.pem"},
        ),
    ],
)
def test_the_options_are_taken_out_as_values(
    url: str, plain: str, options: dict[str, Any] | None
) -> None:
    assert without_tls_options(url) == (plain, options)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://:s3cret@redis.example", "rediss://"),
        ("redis://:s3cret@redis.example?ssl_ca_certs=/s3cret", "TLS is rediss://"),
        ("rediss://:s3cret@redis.example?ssl_cert_reqs=s3cret", "ssl_cert_reqs"),
        ("rediss://:s3cret@redis.example?ssl_check_hostname=s3cret", "ssl_check_hostname"),
        ("rediss://:s3cret@redis.example?ssl_ca_cert=s3cret", "none of ssl_cert_reqs"),
        ("redis+sentinel://:s3cret@a,b/0", r"\?service="),
        ("redis+sentinel://:s3cret@a,b/0?service=", r"\?service="),
        ("redis+sentinel://:s3cret@a,b/s3cret?service=usher", "a number"),
        ("redis+sentinel://:s3cret@a,,b?service=usher", "each Sentinel"),
        ("redis+sentinel://:s3cret@a:s3cret?service=usher", "each Sentinel"),
        ("redis+sentinel://:s3cret@[s3cret?service=usher", "valid URL"),
        ("redis+sentinel://:s3cret@a?service=usher&master=s3cret", "master: is none of service"),
        ("redis+sentinel://a?service=usher&ssl_ca_certs=/s3cret", r"TLS is rediss\+sentinel://"),
        ("sentinel://:s3cret@a?service=usher", r"redis\+sentinel://"),
    ],
)
def test_a_wrong_one_is_refused_without_being_repeated(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        check(url)
    assert "s3cret" not in str(refused.value)


# pragma: allowlist nextline secret
SENTINELS = "redis+sentinel://usher:p%40ss@one,two:26380,[fd00::3]:26381/2?service=sessions"


def test_sentinels_are_read_and_given_to_celery_as_it_takes_them() -> None:
    found = by_sentinel(f"{SENTINELS}&sentinel_username=look&sentinel_password=only")

    assert found == BySentinel(
        hosts=(("one", 26379), ("two", 26380), ("fd00::3", 26381)),
        service="sessions",
        db=2,
        username="usher",
        password="p@ss",
        sentinel_username="look",
        sentinel_password="only",
        tls=None,
    )
    assert found.celery_url() == (
        "sentinel://usher:p%40ss@one:26379/2;"  # pragma: allowlist secret
        "sentinel://usher:p%40ss@two:26380/2;"  # pragma: allowlist secret
        "sentinel://usher:p%40ss@[fd00::3]:26381/2"  # pragma: allowlist secret
    )
    assert "p@ss" not in repr(found)
    assert "only" not in repr(found)


def test_tls_is_for_sentinels_as_for_one_redis() -> None:
    found = by_sentinel("rediss+sentinel://one?service=usher&ssl_ca_certs=/ca.pem")

    assert found is not None
    assert found.tls == {"ssl_cert_reqs": ssl.CERT_REQUIRED, "ssl_ca_certs": "/ca.pem"}
    assert by_sentinel(TLS) is None


@pytest.mark.parametrize(
    ("url", "said"),
    [
        (SENTINELS, "sessions of the Sentinels one:26379, two:26380, [fd00::3]:26381"),
        (TLS, "redis.example:6380"),
        ("redis://redis.example", "redis.example:6379"),
    ],
)
def test_an_operator_reads_where_it_is_and_no_password(url: str, said: str) -> None:
    assert address(url) == said
