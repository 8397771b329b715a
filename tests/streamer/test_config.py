from __future__ import annotations

from pathlib import Path

import pytest

from streamer.config import ConfigError, load, printable, redacted, resolve

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
    ["redis://me:secret@host/0", "redis://:secret@host", "redis://host/0?password=secret", "seedlinks://secret@h"],
)
def test_secrets_are_not_printed(url: str) -> None:
    assert "secret" not in redacted(url)
    assert "host" in redacted(url) or redacted(url).endswith("@h")
    content = {"source": [{"servers": [url], "select": ["*.*"]}], "redis": {"url": url}}
    assert "secret" not in printable(resolve(content, Path("x")))
