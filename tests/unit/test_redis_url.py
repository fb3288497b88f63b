"""Do Celery and Flower get the TLS of `REDIS_URL` as they take it?"""

from __future__ import annotations

import ssl
from typing import Any

import pytest

from dispatcher.redis_url import without_tls_options

TLS = "rediss://usher:p%40ss@redis.example:6380/0"


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
    ],
)
def test_a_wrong_one_is_refused_without_being_repeated(url: str, said: str) -> None:
    with pytest.raises(ValueError, match=said) as refused:
        without_tls_options(url)
    assert "s3cret" not in str(refused.value)
