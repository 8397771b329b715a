"""The notifier's configuration: where secrets come from, and what is said of what cannot be used."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from streamer.config import ConfigError
from streamer.notify.cap import Cap
from streamer.notify.config import NotifyConfig, load
from streamer.notify.mail import Mail
from streamer.notify.webhook import Webhook

SECRET = base64.b64encode(bytes(32)).decode()
LEAST = '[to.siren]\nkind = "webhook"\nurl = "https://h/"\n'


def read(folder: Path, text: str) -> NotifyConfig:
    (folder / "notify.toml").write_text(text)
    return load(folder / "notify.toml")


@pytest.fixture(autouse=True)
def _clean(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("QUAKE_REDIS_URL", raising=False)
    monkeypatch.delenv("QUAKE_TO__SIREN__SECRET", raising=False)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUAKE_TO__SIREN__SECRET", SECRET)


@pytest.mark.usefixtures("secret")
def test_a_secret_comes_from_the_environment_or_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "token").write_text("from-a-file\n")
    monkeypatch.setenv("QUAKE_TO__SIREN__TOKEN_FILE", str(tmp_path / "token"))
    monkeypatch.setenv("QUAKE_REDIS_URL", "redis://me:pass@host/0")
    config = read(tmp_path, LEAST)
    sink = config.to["siren"]
    assert isinstance(sink, Webhook)
    assert sink.secret.get_secret_value() == SECRET
    assert sink.token is not None
    assert sink.token.get_secret_value() == "from-a-file"
    assert config.redis.url == "redis://me:pass@host/0"


@pytest.mark.parametrize(
    ("text", "variable"),
    [
        (f'{LEAST}secret = "{SECRET}"\n', "QUAKE_TO__SIREN__SECRET"),
        ('[to.a]\nkind = "webhook"\nurl = "https://me:pass@h/"\n', "QUAKE_TO__A__URL"),
        ('[to.a]\nkind = "webhook"\nurl = "https://h/?token=x"\n', "QUAKE_TO__A__URL"),
        ('[to.a]\nkind = "mail"\npassword = "x"\n', "QUAKE_TO__A__PASSWORD"),
        ('[to.phones]\nkind = "apprise"\nurl = "json://nothing-secret"\n', "QUAKE_TO__PHONES__URL"),
        (f'{LEAST}[redis]\nurl = "redis://:pass@h"\n', "QUAKE_REDIS__URL"),
    ],
)
def test_in_the_clear_it_is_refused(text: str, variable: str, tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match=rf"it comes from {variable} or from a file that {variable}_FILE names"
    ) as told:
        read(tmp_path, text)
    assert SECRET not in str(told.value)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("", "to: Field required"),
        (LEAST, "to.siren.webhook.secret: Field required"),
        ("[to]", "to: Dictionary should have at least 1 item"),
        ('[to.siren]\nkind = "webhok"\nurl = "https://h/"', "'webhok' found using 'kind'"),
        (f'{LEAST}titel = "x"', "to.siren.webhook.titel: no such key; did you mean 'title'?"),
        (f'{LEAST}title = "$onst"', "did you mean \\$onset"),
        (f'{LEAST}quiet = {{ begin = "22:00", end = "06:00" }}', "to.siren.webhook.quiet.zone: Field required"),
        (f'{LEAST}statuses = ["opened"]', "to.siren.webhook.statuses.0"),
        (LEAST.replace("siren", "Siren"), "to.Siren"),
        (LEAST.replace("siren", "a__b"), "to.a__b"),
        ("x = ", "not TOML"),
    ],
)
def test_a_fault_names_file_and_key(text: str, fault: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=fault) as told:
        read(tmp_path, text)
    assert str(told.value).startswith(str(tmp_path / "notify.toml"))


@pytest.mark.usefixtures("secret")
def test_a_variable_of_a_sink_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A name that is misspelt in one of the two."""
    with pytest.raises(ConfigError, match=r"to\.siren: .*'kind'"):
        read(tmp_path, LEAST.replace("siren", "sirene"))


def test_files_lie_beside_the_configuration(tmp_path: Path) -> None:
    text = '[to.feed]\nkind = "cap"\nsender = "a@b"\nfolder = "feed"\n[to.night]\nkind = "mail"\nhost = "h"\nca = "/x.pem"\n'
    config = read(
        tmp_path, f'{text}sender = "a@b.c"\nrecipients = ["a@b.c"]\n[metrics]\ncertificate = "c"\nkey = "k"\n'
    )
    feed, night = config.to["feed"], config.to["night"]
    assert isinstance(feed, Cap)
    assert isinstance(night, Mail)
    assert feed.folder == tmp_path / "feed"
    assert night.ca == Path("/x.pem")
    assert (config.metrics.certificate, config.metrics.key) == (tmp_path / "c", tmp_path / "k")


def test_no_key_ends_as_the_variables_of_files_do() -> None:
    def keys(model: type[BaseModel]) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield name
            for inner in _models(field.annotation):
                yield from keys(inner)

    assert len(set(keys(NotifyConfig))) > 40
    assert not [key for key in keys(NotifyConfig) if key.endswith("_file")]


def _models(annotation: object) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from _models(inner)
