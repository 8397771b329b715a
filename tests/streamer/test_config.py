from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from streamer.config import Config, ConfigError, load, printable, redacted, resolve

LEAST = '[[source]]\nservers = ["seedlink://x"]\nselect = ["*.*"]\n'


def write(folder: Path, text: str) -> Path:
    path = folder / "quake.toml"
    path.write_text(text)
    return path


def test_the_least_configuration_is_whole(tmp_path: Path) -> None:
    config = load(write(tmp_path, LEAST))
    assert config.state == tmp_path / "quake-state"
    assert config.windows.hop_s is None
    assert config.coincidence
    assert config.coincidence.hold_s == 3.0


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (LEAST + "[trigger]\nonn = 0.5\n", "trigger.onn: no such key; did you mean 'on'?"),
        ("mod = 'live'\n" + LEAST, "mod: no such key; did you mean 'mode'?"),
        (LEAST + "[trigger]\non = 1.5\n", "trigger.on: Input should be less than or equal to 1"),
        (LEAST + "[trigger]\non = 0.2\noff = 0.3\n", "trigger.off (0.3) lies above trigger.on (0.2)"),
        (LEAST + "[windows]\nmax_wait_s = inf\n", "windows.max_wait_s: Input should be a finite number"),
        (LEAST + "[redis]\nretention_d = 1\nretention_h = 48\n", "would come twice"),
        (LEAST + "[places]\nUH3 = {latitude = 1, longitude = 2}\n", "places.UH3"),
        ("redis = 5\n" + LEAST, "redis: Input should be a valid dictionary"),
        ('[[source]]\nserver = ["x"]\nselect = ["*"]\n', "source.0.server: no such key; did you mean 'servers'?"),
        ("[[source]\n", "not TOML"),
        ("", "source: Field required"),
    ],
)
def test_each_fault_names_file_key_and_the_right_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str
) -> None:
    monkeypatch.setenv("QUAKE_REDIS_URL", "redis://elsewhere")
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as fault:
        load(path)
    assert told in str(fault.value)
    assert str(path) in str(fault.value)


def test_every_fault_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as fault:
        load(write(tmp_path, LEAST + "[trigger]\nonn = 1\noof = 1\n"))
    assert len(str(fault.value).splitlines()) == 2


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.toml: No such file"):
        load(tmp_path / "none.toml")


def test_environment_stands_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, LEAST + '[redis]\nurl = "redis://file"\n')
    monkeypatch.setenv("QUAKE_REDIS_URL", "redis://environment")
    monkeypatch.setenv("QUAKE_TRIGGER__ON", "0.75")
    config = load(path)
    assert (config.redis.url, config.trigger.on) == ("redis://environment", 0.75)
    monkeypatch.setenv("QUAKE_SOURCE", "no json")
    with pytest.raises(ConfigError, match="environment"):
        load(path)


def test_coincidence_can_be_switched_off(tmp_path: Path) -> None:
    assert load(write(tmp_path, "coincidence = false\n" + LEAST)).coincidence is False


@pytest.mark.parametrize(
    "url",
    [
        "redis://me:secret@host/0",
        "redis://:secret@host",
        "redis://host/0?password=secret",
        "rediss://host/0?db=0&ssl_password=secret",
        "unix://me:secret@/host.sock",
        "seedlinks://secret@h",
        "seedlinks://me:secret/secret@h",
        "seedlinks://me:secret[@secret?#@h",
    ],
)
def test_secrets_are_not_printed(url: str) -> None:
    assert "secret" not in redacted(url)
    assert "host" in redacted(url) or redacted(url).endswith("@h")
    content = {"source": [{"servers": [url], "select": ["*.*"]}], "redis": {"url": url}}
    assert "secret" not in printable(resolve(content, Path("x")))


def test_a_file_gives_what_a_variable_would(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker's secrets and systemd's credentials are given."""
    (tmp_path / "url").write_text("redis://me:pass@host\n")
    (tmp_path / "source").write_text('[{"servers": ["seedlinks://me:pass@h"], "select": ["*.*"]}]')
    (tmp_path / "on").write_text("0.75\n")
    monkeypatch.setenv("QUAKE_REDIS_URL_FILE", str(tmp_path / "url"))
    monkeypatch.setenv("QUAKE_SOURCE_FILE", str(tmp_path / "source"))
    monkeypatch.setenv("QUAKE_TRIGGER__ON_FILE", str(tmp_path / "on"))
    config = load(write(tmp_path, LEAST))
    assert (config.redis.url, config.trigger.on) == ("redis://me:pass@host", 0.75)
    assert config.source[0].servers == ("seedlinks://me:pass@h",)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "No such file"),
        (b"", "empty"),
        (b"\n", "empty"),
        (b"\xff\xfe", "not UTF-8"),
        (b"redis://h", "one of them"),
    ],
)
def test_a_secret_file_of_no_use_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | None, told: str
) -> None:
    if content is not None:
        (tmp_path / "url").write_bytes(content)
    monkeypatch.setenv("QUAKE_REDIS_URL_FILE", str(tmp_path / "url"))
    if told == "one of them":
        monkeypatch.setenv("QUAKE_REDIS_URL", "redis://other")
    with pytest.raises(ConfigError, match=told) as fault:
        load(write(tmp_path, LEAST))
    assert "QUAKE_REDIS_URL_FILE" in str(fault.value)


def test_no_key_ends_as_the_variables_of_files_do() -> None:
    """Else ``QUAKE_X_FILE`` would mean two things."""

    def keys(model: type[BaseModel]) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield name
            for inner in (field.annotation, *get_args(field.annotation)):
                if isinstance(inner, type) and issubclass(inner, BaseModel):
                    yield from keys(inner)

    assert "min_stations" in set(keys(Config))
    assert not [key for key in keys(Config) if key.endswith("_file")]


def test_a_secret_in_the_file_itself_is_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    text = LEAST.replace("seedlink://x", "seedlinks://me:geheim@x") + '[redis]\nurl = "redis://:geheim@h"\n'
    path = write(tmp_path, text)
    with caplog.at_level(logging.WARNING):
        load(path)
    assert [record.getMessage() for record in caplog.records] == [
        f"{path}: {key} holds a secret in the clear; it can come from {name}, or from a file that {name}_FILE names"
        for key, name in (("source.0.servers.0", "QUAKE_SOURCE"), ("redis.url", "QUAKE_REDIS__URL"))
    ]
    caplog.clear()
    load(write(tmp_path, LEAST + '[redis]\nurl = "redis://h"\n'))
    assert not caplog.records


def test_an_unpinned_model_is_refused_when_pins_are_required(tmp_path: Path) -> None:
    required = "[model]\nrequire_pin = true\n"
    assert load(write(tmp_path, LEAST + required)).model.path is None  # the shipped one
    pin = f'sha256 = "{"0" * 64}"\n'
    assert load(write(tmp_path, LEAST + required + 'path = "a.pt"\n' + pin)).model.sha256
    for table in (required + 'path = "a.pt"\n', required + '[shadow]\npath = "a.pt"\n'):
        with pytest.raises(ConfigError, match="sha256 is not given, and model"):
            load(write(tmp_path, LEAST + table))


def test_metrics_token_and_certificate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUAKE_METRICS__TOKEN", "a-token-of-enough-length")
    text = LEAST + '[metrics]\ncertificate = "cert.pem"\nkey = "/etc/key.pem"\n'
    config = load(write(tmp_path, text))
    assert config.metrics.token
    assert config.metrics.token.get_secret_value() == "a-token-of-enough-length"
    assert "a-token" not in printable(config) + repr(config)
    assert (config.metrics.certificate, config.metrics.key) == (tmp_path / "cert.pem", Path("/etc/key.pem"))
    with pytest.raises(ConfigError, match="go together"):
        load(write(tmp_path, LEAST + '[metrics]\ncertificate = "cert.pem"\n'))
    monkeypatch.setenv("QUAKE_METRICS__TOKEN", "short-secret")
    with pytest.raises(ConfigError, match=r"metrics\.token") as fault:
        load(write(tmp_path, LEAST))
    assert "short-secret" not in str(fault.value)
