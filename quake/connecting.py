"""One way to a Redis server, for the daemon and for subscribers: what its URL may hold, and that no error tells a secret.

    redis://[user:password@]host[:6379]/0      plain
    rediss://host/0?ssl_ca_certs=ca.pem&ssl_certfile=client.pem&ssl_keyfile=client.key      TLS; the options are redis-py's
    unix://[user:password@]/run/valkey.sock?db=0      a socket of this machine

Reserved characters in secrets are percent-encoded. Does not decide when to try again: a failure is the caller's at once,
for a client that connects anew behind its caller's back hides that another server has taken over.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

CONNECT_S = 5.0
FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
ENCODE = "not a URL; reserved characters of a user's name or a password are percent-encoded (/ is %2F, @ is %40)"


def connect(url: str, timeout_s: float, on_connect: Callable[[], None] = lambda: None) -> redis.Redis:
    """Connects to nothing yet. ``on_connect`` is called after each connection that is made later on.

    Raises ValueError, without a secret in it, for an address that means nothing or names a file that is not there.
    """
    _refuse_unencoded(url)

    def connected(connection: Any) -> None:
        connection.on_connect()
        on_connect()

    try:
        client = redis.Redis.from_url(
            url,
            decode_responses=True,
            encoding_errors="replace",  # an entry of somebody else's bytes is no alert, but no end of reading either
            socket_timeout=timeout_s,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
            redis_connect_func=connected,
        )
        client.connection_pool.make_connection()  # unknown options are told only here
    except TypeError as error:
        raise ValueError(f"unknown option {str(error).rpartition(' ')[2]}") from None
    except (ValueError, redis.RedisError) as error:
        raise ValueError(str(error)) from None
    _refuse_missing(client)
    return client


def _refuse_unencoded(url: str) -> None:
    """A password with an @, a / or a # in it is read as host, port or path, and would stand in every error of them."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError(ENCODE) from None
    if "@" in parts.path + parts.query + parts.fragment:
        raise ValueError(ENCODE)


def _refuse_missing(client: redis.Redis) -> None:
    for option in FILES:
        name = client.connection_pool.connection_kwargs.get(option)
        if name is not None and not Path(name).is_file():
            raise ValueError(f"{option}: {name}: no such file")
