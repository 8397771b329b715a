"""The configuration: a TOML file, checked before anything starts. A wrong key is an error that names key, file and the nearest right one.

Environment variables named ``QUAKE_SECTION__KEY`` stand above the file, so that secrets need not lie in it; ``QUAKE_REDIS_URL``
too. Each may come from a file that ``QUAKE_..._FILE`` names (`streamer.secret`).
"""

from __future__ import annotations

import json
import logging
import os
import socket
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    EnvSettingsSource,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
)

from quake.alerts import Mode
from quake.faults import faults
from streamer.secret import SecretError, cleaned, in_the_clear, redacted, with_files

__all__ = ["Config", "ConfigError", "load", "printable", "redacted", "resolve"]

Seconds = Annotated[float, Field(ge=0, le=86_400)]
CONFIGURATION_VERSION = "1.0"
"""Of the keys, for people: docs/reference/versions.md says when which number grows."""
SHIPPED_MODEL = "detector.pt"

S = TypeVar("S", bound="Settings")

log = logging.getLogger(__name__)


class ConfigError(Exception):
    """The configuration cannot be used; each line names a key, the file and what is wrong."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """The detector, and where it runs."""

    path: Path | None = Field(default=None, description="Compiled model; the shipped detector if not given")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="The file must have this digest")
    require_pin: bool = Field(
        default=False,
        description="Refuse a `path` without a `sha256`, here, in `shadow` and in `characteriser`; shipped models need none",
    )
    device: Literal["auto", "cpu", "cuda"] = Field(default="auto", description="auto: a GPU where there is one")
    on_device_fault: Literal["cpu", "exit"] = Field(
        default="cpu",
        description="Of a GPU that is lost or out of memory: go on on the CPU, or fail until the process ends",
    )
    threads: int = Field(
        default=1,
        ge=1,
        description="Of torch or ONNX Runtime; fixed, so that scores do not depend on the machine's load",
    )


class ShadowConfig(_Section):
    """A model on trial: it scores beside the other and alerts nobody; metrics tell how the two differ."""

    path: Path = Field(description="Compiled model")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="The file must have this digest")
    operating_point: str | None = Field(default=None, description="Of this model; `standard` if not given")


class CharacteriserConfig(_Section):
    """Of magnitude classes, in alerts of stations whose gain is known."""

    enabled: bool = Field(default=True, description="false: alerts say nothing of sizes")
    path: Path | None = Field(default=None, description="Compiled model; the shipped characteriser if not given")
    sha256: str | None = Field(default=None, pattern="^[0-9a-f]{64}$", description="The file must have this digest")


class WindowConfig(_Section):
    """What of a station is scored, and when."""

    hop_s: float | None = Field(
        default=None,
        gt=0,
        description="Seconds between windows, a whole number of samples; if not given the model's, and 1 where it has none",
    )
    max_wait_s: Seconds = Field(
        default=10.0, description="A window is scored as it stands once its station is this far ahead"
    )
    incomplete: Literal["score", "skip"] = Field(
        default="score", description="score: with a vertical alone, or one that is bridged, if need be"
    )
    bridge_s: float = Field(
        default=2.0,
        ge=0,
        le=10,
        description="After max_wait_s, this much missing of a channel within a window is bridged with what lies beside it",
    )
    ring_s: float = Field(default=180.0, ge=60, le=86_400, description="Seconds of samples kept for each channel")
    future_s: Seconds = Field(default=60.0, description="Packets further ahead of this machine's clock are refused")


class WorkerConfig(_Section):
    """How windows of many stations are scored together."""

    batch_size: int = Field(default=16, ge=1, le=1024, description="Windows scored at once at most")
    longest_wait_ms: float = Field(
        default=10.0, ge=0, le=5_000, description="A ready window waits this long for others"
    )
    max_behind_s: float = Field(
        default=60.0, ge=1, description="Live only: beyond this and not catching up, windows are dropped"
    )


class TriggerConfig(_Section):
    """When the scores of one station are a detection."""

    operating_point: str | None = Field(
        default=None,
        description="The model's, by name; if not given `standard`, or its thresholds where it has no points",
    )
    on: float | None = Field(
        default=None, gt=0, le=1, description="Probability that opens, instead of the operating point's"
    )
    off: float | None = Field(default=None, ge=0, le=1, description="Probability that closes, instead of the point's")
    in_a_row: int | None = Field(
        default=None,
        ge=1,
        description="Windows that open a detection: none below `off`, their mean log-odds at or above those of `on`; the point's, or 2",
    )
    release: int = Field(default=3, ge=1, description="Windows below `off` that close it")
    dead_s: Seconds = Field(default=15.0, description="After an opening no other begins for this long")
    longest_s: float = Field(default=300.0, gt=0, description="A detection is closed after this long at the latest")
    most_a_minute: int = Field(
        default=60,
        ge=0,
        description="Openings of single stations told within a minute of data; events tell of the others. 0: no limit",
    )


class CoincidenceConfig(_Section):
    """When detections of several stations are an event."""

    min_stations: int = Field(default=3, ge=2, description="Stations that make an event")
    window_s: Seconds = Field(default=10.0, description="Largest difference of onsets where coordinates are not known")
    speed_km_s: float = Field(default=3.0, gt=0, description="Slowest apparent speed across the network")
    tolerance_s: Seconds = Field(default=3.0, description="Error of an onset, on top of the travel time")
    hold_s: Seconds = Field(
        default=3.0, description="Longest wait, in data time, for stations that lag; 0 gives up same ids"
    )
    flowing_s: Seconds = Field(default=60.0, description="A station further behind the newest is not waited for")
    longest_s: float = Field(default=180.0, gt=0, description="An event is closed after this long at the latest")


class AssociatorConfig(_Section):
    """Of `quake-streamer associate`, which decides the events of all shards, by the rules of `coincidence`."""

    enabled: bool = Field(
        default=False,
        description="Events are the associator's: a daemon tells it its detections and decides none itself",
    )
    lease_s: float = Field(
        default=6.0,
        ge=0.5,
        le=60,
        description="An associator that is silent for this long is replaced by one that stands by",
    )


class RedisAddress(_Section):
    """Where alerts are."""

    url: str = Field(
        default="redis://127.0.0.1:6379/0",
        description="redis://, rediss:// with redis-py's ssl_ca_certs=, ssl_certfile=, ssl_keyfile=, or unix://",
    )
    prefix: str = Field(default="{quake}", pattern=r"\{.+\}", description="Of all keys; the braces are the hash tag")


class RedisConfig(RedisAddress):
    """Where alerts go."""

    retention_d: float = Field(default=30.0, gt=0, le=3_650, description="Days that alerts stay on the stream")
    retention_h: float = Field(
        default=48.0, gt=0, description="Hours of alerts offered again to a Redis that lost its data"
    )
    max_age_s: float = Field(
        default=300.0, gt=0, description="A live alert published later than this after onset is stale"
    )

    @model_validator(mode="after")
    def _seen_outlives_the_offer(self) -> RedisConfig:
        if self.retention_h > 24 * self.retention_d:
            raise ValueError(
                "redis.retention_h is longer than redis.retention_d: what is offered again would come twice"
            )
        return self


class LiveConfig(_Section):
    """What `quake-streamer dashboard` shows, on Redis: states of stations, samples while somebody looks, pictures of alerts."""

    enabled: bool = Field(default=True, description="A thread of its own writes it, which the pipeline never waits for")
    helicorder: bool = Field(
        default=False, description="A day of each station's vertical too: some 140 kB of Redis for each station"
    )


class PageConfig(_Section):
    """The web page as a process beside the daemon. Its token comes from QUAKE_DASHBOARD_TOKEN(_FILE)."""

    enabled: bool = Field(
        default=False, description="Needs `quake[dashboard]`; started again if it ends, and ended with the daemon"
    )
    host: str = Field(default="127.0.0.1", description="Another than this machine's own needs the token")
    port: int = Field(default=9109, ge=0, le=65_535, description="0: any free port, written to the log")
    certificate: Path | None = Field(default=None, description="PEM, for https; read again when it is renewed")
    key: Path | None = Field(default=None, description="Of the certificate, PEM, without a password")

    @model_validator(mode="after")
    def _certificate_with_key(self) -> PageConfig:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("page.certificate and page.key go together")
        return self


class ServerConfig(_Section):
    """Where `/metrics`, `/healthz` and `/readyz` listen."""

    host: str = Field(default="127.0.0.1", description="Address to listen on")
    port: int = Field(default=9108, ge=0, le=65_535, description="0: any free port, written to the log")
    token: SecretStr | None = Field(
        default=None,
        min_length=16,
        description="Bearer token for /metrics and the reasons of /readyz; best from QUAKE_METRICS__TOKEN(_FILE)",
    )
    certificate: Path | None = Field(default=None, description="PEM, for https; read again when it is renewed")
    key: Path | None = Field(default=None, description="Of the certificate, PEM, without a password")

    @model_validator(mode="after")
    def _certificate_with_key(self) -> ServerConfig:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("metrics.certificate and metrics.key go together")
        return self


class MetricsConfig(ServerConfig):
    """Where `/metrics`, `/healthz` and `/readyz` listen."""

    max_stations: int = Field(default=1000, ge=0, description="Stations with series of their own; the others share one")


class Place(_Section):
    """Where a station stands."""

    latitude: float = Field(ge=-90, le=90, description="Degrees north")
    longitude: float = Field(ge=-180, le=180, description="Degrees east")
    counts_per_m_s: float | None = Field(
        default=None, gt=0, description="Gain of all components, instead of the inventory's; of velocity alone"
    )


class SourceConfig(_Section):
    """One list of servers that have the same stations."""

    servers: tuple[str, ...] = Field(
        min_length=1, description="The first, then its fall-backs: seedlink:// or seedlinks://"
    )
    select: tuple[str, ...] = Field(min_length=1, description="NET.STA, NET.STA.LOC or NET.STA.LOC.CHA; * and ?")
    silence_s: float = Field(default=60.0, gt=0, description="A connection without a byte for this long is given up")
    refresh_s: float = Field(
        default=600.0, gt=0, description="How often wildcards are matched against the server's list"
    )
    failback_s: float = Field(
        default=600.0,
        gt=0,
        description="How often the first server is tried again while on a fall-back; gone back to once it has new data",
    )


class _Environment(EnvSettingsSource):
    def _load_env_vars(self) -> Mapping[str, str | None]:
        return with_files(super()._load_env_vars())


class ShardConfig(_Section):
    """Which part of the selected stations is this daemon's. Several share them out by their names: each has the same `select`
    and `count`, and an `index`, a `state` and a `daemon` of its own."""

    count: int = Field(default=1, ge=1, le=1024, description="Daemons, or groups of them, that share the stations out")
    index: int = Field(
        default=0, ge=0, description="This one's number, from 0; of a StatefulSet's pod by QUAKE_SHARD__INDEX"
    )

    @model_validator(mode="after")
    def _one_of_them(self) -> ShardConfig:
        if self.index >= self.count:
            raise ValueError(f"shard.index ({self.index}) is not below shard.count ({self.count})")
        return self


class Settings(BaseSettings):
    """What a program reads: a file, and the environment above it."""

    model_config = SettingsConfigDict(extra="forbid", frozen=True, env_prefix="QUAKE_", env_nested_delimiter="__")

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return _Environment(settings_cls), init_settings


class Config(Settings):
    """Everything that `quake-streamer run` reads."""

    mode: Mode = Field(default=Mode.LIVE, description="Alerts of any other mode go to streams of their own")
    state: Path = Field(
        default=Path("quake-state"), description="Folder of the outbox; beside the configuration file if relative"
    )
    outbox_mb: float = Field(
        default=512.0,
        ge=1,
        description="Disk that the outbox may fill: of the alerts that Redis has, the oldest are forgotten earlier then",
    )
    daemon: str = Field(
        default_factory=socket.gethostname,
        description="Names this process in the heartbeat; the host's name if not given",
    )
    source: tuple[SourceConfig, ...] = Field(min_length=1, description="One for each list of servers")
    shard: ShardConfig = ShardConfig()
    inventory: tuple[Path, ...] = Field(default=(), description="StationXML files: coordinates, orientation and gain")
    places: dict[Annotated[str, Field(pattern=r"^\w+[._]\w+$")], Place] = Field(
        default={}, description="Coordinates by NET.STA, above those of the inventory"
    )
    model: ModelConfig = ModelConfig()
    shadow: ShadowConfig | None = None
    characteriser: CharacteriserConfig = CharacteriserConfig()
    windows: WindowConfig = WindowConfig()
    worker: WorkerConfig = WorkerConfig()
    trigger: TriggerConfig = TriggerConfig()
    coincidence: CoincidenceConfig | Literal[False] = Field(
        default=CoincidenceConfig(), description="false: single-station detections alone"
    )
    associator: AssociatorConfig = AssociatorConfig()
    redis: RedisConfig = RedisConfig()
    live: LiveConfig = LiveConfig()
    page: PageConfig = PageConfig()
    metrics: MetricsConfig = MetricsConfig()

    @model_validator(mode="after")
    def _thresholds_in_order(self) -> Config:
        on, off = self.trigger.on, self.trigger.off
        if on is not None and off is not None and off > on:
            raise ValueError(f"trigger.off ({off}) lies above trigger.on ({on})")
        return self

    @model_validator(mode="after")
    def _events_are_wanted(self) -> Config:
        if self.associator.enabled and self.coincidence is False:
            raise ValueError("associator.enabled, and coincidence = false: there would be nothing to decide")
        return self

    @model_validator(mode="after")
    def _pinned(self) -> Config:
        tables = [("model", self.model), ("shadow", self.shadow), ("characteriser", self.characteriser)]
        unpinned = [name for name, table in tables if table and table.path and not table.sha256]
        if self.model.require_pin and unpinned:
            raise ValueError(f"{unpinned[0]}.sha256 is not given, and model.require_pin is on")
        return self


def load(path: Path) -> Config:
    """Raises `ConfigError` with a line for each fault."""
    return resolve(read_toml(path), path)


def read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text("utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: not TOML: {error}") from error


def settled(content: dict[str, Any], path: Path, settings: type[S]) -> S:
    """A parsed file with the environment above it, as settings of a program."""
    try:
        url, redis = redis_url(), content.get("redis", {})
        told = {**content, "redis": {**redis, "url": url}} if url and isinstance(redis, dict) else content
        return settings(**told)
    except (SettingsError, SecretError) as error:
        raise ConfigError(f"environment: {error}") from error
    except ValidationError as error:
        raise ConfigError("\n".join(f"{path}: {fault}" for fault in faults(error, settings))) from error


def resolve(content: dict[str, Any], path: Path) -> Config:
    """Check a parsed file; relative paths in it count from the folder it lies in."""
    config = settled(content, path, Config)
    for key, variable in in_the_clear(content):
        text = "%s: %s holds a secret in the clear; it can come from %s, or from a file that %s_FILE names"
        log.warning(text, path, key, variable, variable)
    here = path.resolve().parent
    model, characteriser = (
        table.model_copy(update={"path": here / table.path}) if table.path else table
        for table in (config.model, config.characteriser)
    )
    shadow = config.shadow and config.shadow.model_copy(update={"path": here / config.shadow.path})
    inventory = tuple(here / p for p in config.inventory)
    metrics, page = (
        table.model_copy(
            update={name: here / given for name in ("certificate", "key") if (given := getattr(table, name))}
        )
        for table in (config.metrics, config.page)
    )
    return config.model_copy(
        update={
            "state": here / config.state,
            "inventory": inventory,
            "model": model,
            "characteriser": characteriser,
            "shadow": shadow,
            "metrics": metrics,
            "page": page,
        }
    )


def redis_url() -> str | None:
    """From the environment. Raises `SecretError`."""
    return with_files(os.environ).get("quake_redis_url")


def printable(config: Config) -> str:
    """As resolved, in JSON, without secrets."""
    return json.dumps(cleaned(config.model_dump(mode="json")), indent=2, ensure_ascii=False)
