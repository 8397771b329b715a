"""What a browser may ask: JSON, one stream of server-sent events, and the page's own files.

GET  /api/state                  daemons, stations and their mutes
GET  /api/alerts                 ?kind=event|detection &status= &station= (part of a name) &since= &until= (RFC 3339) &limit=
GET  /api/alerts/ID              with its marks, and the picture's waveforms while they are kept
GET  /api/helicorder/STATION     a day of its vertical, where the daemon keeps that (`streamer.live.envelope`)
POST /api/alerts/ID/marks        {mark, by, comment}
GET  /api/marks                  labels for the trainer, JSON lines
PUT  /api/mutes/STATION          {until, by, why};  DELETE takes it back
GET  /api/events                 ?station=  state, alert, and the station's samples and windows
POST /api/sign-in                {token}
GET  /healthz
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import redis
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Message, Receive, Scope, Send

from quake.alerts import Alert, Kind, Status
from quake.times import NS, Timestamp
from streamer.dashboard import marks
from streamer.dashboard.guard import COOKIE, Guard, Token
from streamer.dashboard.hub import Browser, Hub
from streamer.mutes import Mute

STATIC, COASTLINES = files("streamer.dashboard") / "static", "coastlines.json"
HOURS = 23
"""Of a helicorder, before the one that runs."""
MOST_BROWSERS = 100
KEEP_ALIVE_S = 15.0
"""A line now and then, so that proxies do not take the stream for dead; states come oftener while all is well."""
SEND_S = 10.0
"""Longest time that a browser may take nothing."""
SIGN_IN_PAUSE_S = 0.5
"""After a wrong token."""
SIGNED_IN_S = 30 * 86_400


class EventStream(StreamingResponse):
    """Server-sent events, to a browser that takes them; the connection of one that does not is cut."""

    def __init__(self, told: AsyncGenerator[str]) -> None:
        super().__init__(told, media_type="text/event-stream")
        self._told = told

    async def stream_response(self, send: Send) -> None:
        async def soon(message: Message) -> None:
            async with asyncio.timeout(SEND_S):
                await send(message)

        await super().stream_response(soon)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with aclosing(self._told):  # or it would leave the hub when garbage is collected
            with suppress(ClientDisconnect, TimeoutError):
                await super().__call__(scope, receive, send)


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Wanted(_Asked):
    """Of the list of alerts."""

    kind: Kind | None = None
    status: Status | None = None
    station: str = ""
    since: Timestamp | None = None
    until: Timestamp | None = None
    limit: int = Field(default=200, ge=1, le=2_000)

    def fits(self, alert: Alert) -> bool:
        return (
            (self.kind is None or alert.kind is self.kind)
            and (self.status is None or alert.status is self.status)
            and (self.since is None or alert.onset >= self.since)
            and (self.until is None or alert.onset <= self.until)
            and any(self.station.upper() in s.source_id for s in alert.stations)
        )


class Muting(_Asked):
    until: Timestamp
    by: str = Field(min_length=1, max_length=64)
    why: str = Field(min_length=1, max_length=500)


class SignIn(_Asked):
    token: str = Field(max_length=1_000)


@dataclass(frozen=True)
class Api:
    hub: Hub
    token: Token
    is_tls: bool
    clock_ns: Callable[[], int]

    async def state(self, _: Request) -> Response:
        return JSONResponse(self.hub.state)

    async def alerts(self, request: Request) -> Response:
        wanted = Wanted.model_validate(dict(request.query_params))
        found = await run_in_threadpool(self.hub.alerts, wanted.fits, wanted.limit)
        return self._signed_in(JSONResponse(found))  # a screen on the wall is never signed out

    async def alert(self, request: Request) -> Response:
        alert = self._known(request)
        text: Any = await run_in_threadpool(self.hub.client.get, self.hub.keys.picture(alert.id))
        return JSONResponse(self.hub.shown(alert) | {"picture": json.loads(text) if text else None})

    async def helicorder(self, request: Request) -> Response:
        station = self._station(request)
        newest_s = self.hub.state["stations"][station]["newest_s"] or self.clock_ns() / NS
        last = int(newest_s // 3600)
        hours = range(last - HOURS, last + 1)
        keys = [self.hub.keys.hour(station, hour) for hour in hours]
        found: Any = await run_in_threadpool(self.hub.client.mget, keys)
        return JSONResponse({hour: text for hour, text in zip(hours, found, strict=True) if text})

    async def mark(self, request: Request) -> Response:
        said = marks.Said.model_validate_json(await request.body())
        mark = marks.of(self._known(request), said, self.clock_ns())
        await run_in_threadpool(marks.store, self.hub.client, self.hub.keys, mark)
        return JSONResponse(mark.model_dump(mode="json"), 201)

    async def labels(self, _: Request) -> Response:
        said, _last = await run_in_threadpool(marks.read_all, self.hub.client, self.hub.keys)
        headers = {"Content-Disposition": 'attachment; filename="marks.jsonl"'}
        return Response("".join(f"{line}\n" for line in marks.lines(said)), 200, headers, "application/x-ndjson")

    async def mute(self, request: Request) -> Response:
        station, now_ns = self._station(request), self.clock_ns()
        asked = Muting.model_validate_json(await request.body())
        if asked.until <= now_ns:
            raise HTTPException(422, "until: lies in the past")
        mute = Mute(until=asked.until, by=asked.by, why=asked.why, since=now_ns)
        await run_in_threadpool(self.hub.client.hset, self.hub.keys.mutes, station, mute.model_dump_json())
        return JSONResponse(mute.model_dump(mode="json"))

    async def unmute(self, request: Request) -> Response:
        await run_in_threadpool(self.hub.client.hdel, self.hub.keys.mutes, self._station(request))
        return JSONResponse({})

    async def events(self, request: Request) -> Response:
        station = request.query_params.get("station")
        if station is not None and station not in self.hub.state["stations"]:
            raise HTTPException(404, f"no station {station}")
        if self.hub.listening >= MOST_BROWSERS:
            raise HTTPException(503, f"{MOST_BROWSERS} browsers listen already")
        browser = Browser(station, asyncio.get_running_loop())
        return EventStream(self._told(browser))

    async def _told(self, browser: Browser) -> AsyncGenerator[str]:
        try:
            for message in await run_in_threadpool(self.hub.join, browser):
                yield message
            while True:
                try:
                    message_or_end = await asyncio.wait_for(browser.queue.get(), KEEP_ALIVE_S)
                except TimeoutError:
                    message_or_end = ": \n\n"
                if message_or_end is None:
                    return
                yield message_or_end
        finally:
            self.hub.leave(browser)

    async def sign_in(self, request: Request) -> Response:
        if not self.token.fits(SignIn.model_validate_json(await request.body()).token):
            await asyncio.sleep(SIGN_IN_PAUSE_S)
            raise HTTPException(403, "not the token")
        return self._signed_in(JSONResponse({}))

    def _signed_in(self, answer: Response) -> Response:
        if self.token.cookie:
            answer.set_cookie(
                COOKIE, self.token.cookie, SIGNED_IN_S, httponly=True, samesite="strict", secure=self.is_tls
            )
        return answer

    async def health(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    def _known(self, request: Request) -> Alert:
        alert = self.hub.alert(request.path_params["id"])
        if alert is None:
            raise HTTPException(404, "no such alert among those that are kept")
        return alert

    def _station(self, request: Request) -> str:
        station: str = request.path_params["station"]
        if station not in self.hub.state["stations"]:
            raise HTTPException(404, f"no station {station}")
        return station


def application(hub: Hub, token: Token, host: str, *, is_tls: bool, clock_ns: Callable[[], int]) -> Starlette:
    api = Api(hub, token, is_tls, clock_ns)
    routes = [
        Route("/api/state", api.state),
        Route("/api/alerts", api.alerts),
        Route("/api/alerts/{id}", api.alert),
        Route("/api/alerts/{id}/marks", api.mark, methods=["POST"]),
        Route("/api/helicorder/{station}", api.helicorder),
        Route("/api/marks", api.labels),
        Route("/api/mutes/{station}", api.mute, methods=["PUT"]),
        Route("/api/mutes/{station}", api.unmute, methods=["DELETE"]),
        Route("/api/events", api.events),
        Route("/api/sign-in", api.sign_in, methods=["POST"]),
        Route("/healthz", api.health),
        *_without_coastlines(),
        Mount("/", StaticFiles(directory=str(STATIC), html=True)),
    ]
    faults: Any = {ValidationError: _wrong, HTTPException: _refused, redis.RedisError: _unreachable}
    return Starlette(routes=routes, middleware=[Middleware(Guard, token=token, host=host)], exception_handlers=faults)


def _without_coastlines() -> list[Route]:
    """An answer that is no fault, where scripts/coastlines did not run before the installation."""

    async def nothing(_: Request) -> Response:
        return Response(status_code=204)

    return [] if (STATIC / COASTLINES).is_file() else [Route(f"/{COASTLINES}", nothing)]


async def _wrong(_: Request, error: ValidationError) -> Response:
    told = "; ".join(f"{'.'.join(map(str, one['loc'])) or 'body'}: {one['msg']}" for one in error.errors())
    return JSONResponse({"error": told}, 422)


async def _refused(_: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": error.detail}, error.status_code)


async def _unreachable(_: Request, error: redis.RedisError) -> Response:
    return JSONResponse({"error": "Redis is not reachable"}, 503)
