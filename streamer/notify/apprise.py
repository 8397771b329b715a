"""The rest, by Apprise: telephones, chat rooms and pagers of some hundred services, each by a URL.

One target a sink: of several, in URLs or in one URL, those that had it would get it again for the one that is dead.
"""

from __future__ import annotations

import logging
from typing import Any, Literal

from pydantic import Field, SecretStr

from streamer.config import ConfigError
from streamer.notify.deciding import Rate
from streamer.notify.sink import DeferredError, Telling, missing
from streamer.notify.wording import Notice


class Apprise(Telling):
    kind: Literal["apprise"]
    url: SecretStr = Field(description="As Apprise documents it; from the environment, for it holds secrets anywhere")
    rate: Rate | None = Rate()

    def prepare(self) -> None:
        self._service()

    def send(self, notice: Notice, now_ns: int) -> None:
        if not self._service().notify(body=notice.text, title=notice.title):
            raise DeferredError("Apprise could not deliver it (its own lines in the log say why)")

    def _service(self) -> Any:
        try:
            from apprise import Apprise as Service
        except ImportError as error:
            raise missing("apprise") from error
        service, its = Service(), logging.getLogger("apprise")
        its.setLevel(logging.CRITICAL)  # it quotes what it cannot read
        is_known = service.add(self.url.get_secret_value())
        for name in ("apprise", "urllib3", "requests"):  # on the level of debugging they write the URL, or its path
            logging.getLogger(name).setLevel(logging.WARNING)
        if not is_known or len(service) != 1:
            raise ConfigError("url: not one URL that Apprise knows")
        if (targets := len(service[0])) > 1:
            raise ConfigError(
                f"url: names {targets} targets; give each a sink of its own, or one that is dead repeats it to the others"
            )
        return service
