"""The notifier's configuration: a TOML file with a table ``[to.NAME]`` for each sink, checked before anything is sent.

Secrets come from the environment, ``QUAKE_TO__NAME__SECRET``, or from a file that ``QUAKE_TO__NAME__SECRET_FILE`` names. In
the file they are refused.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from streamer.config import ConfigError, RedisAddress, ServerConfig, Settings, read_toml, settled
from streamer.notify.apprise import Apprise
from streamer.notify.cap import Cap
from streamer.notify.files import QuakeML
from streamer.notify.mail import Mail
from streamer.notify.mqtt import Mqtt
from streamer.notify.webhook import Webhook
from streamer.secret import in_the_clear

PATHS = ("folder", "ca")
"""Keys of sinks that name files."""

Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9]*(_[a-z0-9]+)*$")]
"""As it can stand in the name of a variable."""
AnySink = Annotated[Webhook | Mail | Mqtt | Cap | QuakeML | Apprise, Field(discriminator="kind")]


class NotifierMetricsConfig(ServerConfig):
    port: int = Field(default=9109, ge=0, le=65_535, description="0: any free port, written to the log")


class NotifyConfig(Settings):
    """Everything that `quake-streamer notify` reads."""

    redis: RedisAddress = RedisAddress()
    metrics: NotifierMetricsConfig = NotifierMetricsConfig()
    heartbeat_s: float = Field(
        default=60.0,
        ge=10,
        description="No daemon has beaten for this long: the heartbeat is lost. They beat every 5 s",
    )
    to: dict[Name, AnySink] = Field(min_length=1)


def load(path: Path) -> NotifyConfig:
    """Raises `ConfigError` with a line for each fault."""
    content = read_toml(path)
    if found := [
        f"{path}: {key}: a secret in the clear; it comes from {name} or from a file that {name}_FILE names"
        for key, name in _secrets(content)
    ]:
        raise ConfigError("\n".join(found))
    config = settled(content, path, NotifyConfig)
    here = path.resolve().parent
    sinks = {
        name: sink.model_copy(update={key: here / given for key in PATHS if (given := getattr(sink, key, None))})
        for name, sink in config.to.items()
    }
    metrics = config.metrics.model_copy(
        update={key: here / given for key in ("certificate", "key") if (given := getattr(config.metrics, key))}
    )
    return config.model_copy(update={"to": sinks, "metrics": metrics})


def _secrets(content: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Each key that holds one, and the variable it comes from instead. Of Apprise's URLs any part may be one."""
    yield from in_the_clear(content)
    tables = content.get("to", {})
    for name, table in tables.items() if isinstance(tables, Mapping) else ():
        if isinstance(table, Mapping) and table.get("kind") == "apprise" and "url" in table:
            yield f"to.{name}.url", f"QUAKE_TO__{name.upper()}__URL"
