"""What a Redis URL may hold, and what no error of it tells."""

from __future__ import annotations

import re

import pytest

from quake.connecting import connect


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("http://host", "scheme"),
        ("redis://u:geh/eim@host/0", "%2F"),
        ("redis://u:geh#eim@host/0", "%2F"),
        ("redis://u:12?eim@host/0", "%2F"),
        ("redis://u:geh[eim@host", "%2F"),
        ("unix://u:geh/eim@/run/valkey.sock", "%2F"),
        ("redis://u:geheim@host:port", "port"),
        ("redis://u:geheim@host?db=x", "db"),
        ("redis://u:geheim@host?colour=red", "unknown option 'colour'"),
        ("rediss://u:geheim@host?ssl_cert_reqs=perhaps", "perhaps"),
        ("rediss://u:geheim@host?ssl_ca_certs=/none/ca.pem", "ssl_ca_certs: /none/ca.pem: no such file"),
    ],
)
def test_an_address_that_means_nothing_is_told_without_its_secret(url: str, told: str) -> None:
    with pytest.raises(ValueError, match=f"(?i){re.escape(told)}") as fault:
        connect(url, 1.0)
    assert "eim" not in str(fault.value)
    assert fault.value.__suppress_context__ or fault.value.__context__ is None


@pytest.mark.parametrize(
    "url",
    [
        "redis://u:geh%2Feim%40@host:1/3",
        "redis://host/0?password=geh%40eim",
        "unix:///run/valkey.sock?db=2",
        "rediss://h",
    ],
)
def test_what_is_encoded_is_taken(url: str) -> None:
    with connect(url, 1.0) as client:
        assert client.connection_pool.connection_kwargs["decode_responses"] is True
