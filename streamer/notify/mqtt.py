"""A message on an MQTT broker, with quality of service 1: it counts as delivered once the broker has said so.

The payload is that of the webhook. A connection for each message: alerts are few, and one that nobody looks after may be dead.
"""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, model_validator

from streamer.notify.sink import TIMEOUT_S, DeferredError, Telling, missing, tls
from streamer.notify.webhook import body
from streamer.notify.wording import Notice


class Mqtt(Telling):
    kind: Literal["mqtt"]
    host: str = Field(min_length=1)
    port: int | None = Field(default=None, ge=1, le=65_535, description="If not given 8883, or 1883 without TLS")
    tls: bool = Field(default=True, description="`false` for a broker on this machine; no password is sent there")
    ca: Path | None = Field(default=None, description="PEM of the authority that signed the broker's certificate")
    user: str | None = None
    password: SecretStr | None = Field(default=None, min_length=1, description="From the environment")
    topic: str = Field(default="quake/alerts", pattern=r"^[^+#\x00]+$")
    retain: bool = Field(default=False, description="The broker keeps the newest for who subscribes later")

    @model_validator(mode="after")
    def _password_is_safe(self) -> Mqtt:
        if self.password is not None and not (self.tls and self.user):
            raise ValueError("a password goes with a user, and over TLS alone")
        return self

    def prepare(self) -> None:
        try:
            import paho.mqtt.client  # noqa: F401
        except ImportError as error:
            raise missing("paho-mqtt") from error
        tls(self.ca)

    def send(self, notice: Notice, now_ns: int) -> None:
        from paho.mqtt.client import Client
        from paho.mqtt.enums import CallbackAPIVersion

        client = Client(CallbackAPIVersion.VERSION2)
        client.connect_timeout = TIMEOUT_S
        if self.user is not None:
            client.username_pw_set(self.user, self.password.get_secret_value() if self.password else None)
        if self.tls:
            client.tls_set_context(tls(self.ca))
        try:
            self._publish(client, body(notice))
        except (OSError, ValueError, RuntimeError) as error:  # paho's own are of the last two
            raise DeferredError(error) from error
        finally:
            client.disconnect()
            client.loop_stop()

    def _publish(self, client: Any, payload: bytes) -> None:
        end_s = time.monotonic() + TIMEOUT_S
        answers: list[Any] = []
        answered = threading.Event()

        def connected(_client: Any, _data: Any, _flags: Any, code: Any, _properties: Any) -> None:
            answers.append(code)
            answered.set()

        client.on_connect = connected
        client.connect(self.host, self.port or (8883 if self.tls else 1883))
        client.loop_start()
        if not answered.wait(TIMEOUT_S):
            raise DeferredError("the broker says nothing")
        if answers[0].is_failure:
            raise DeferredError(f"the broker refuses: {answers[0]}")
        told = client.publish(self.topic, payload, qos=1, retain=self.retain)
        told.wait_for_publish(max(0.0, end_s - time.monotonic()))
        if not told.is_published():
            raise DeferredError("the broker does not confirm")
