"""The emulator over real HTTP, on loopback. Dropped and reset connections are real ones."""

from __future__ import annotations

import asyncio
import signal
import socket
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from langbatch.emulator.clock import Clock
from langbatch.emulator.config import EmulatorConfig, Timing
from langbatch.emulator.profiles import Family
from langbatch.emulator.service import Emulator
from langbatch.emulator.wire import Drop, Request, Response

if TYPE_CHECKING:
    import uvicorn
    from starlette.requests import Request as HTTPRequest
    from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK = "127.0.0.1"


class RunningServer:
    """An emulator that listens, in a thread. `emulator` is the object that answers: ask it for reports."""

    def __init__(self, emulator: Emulator, port: int = 0) -> None:
        self.emulator = emulator
        self._listener = _listen(port)
        #: `http://127.0.0.1:PORT`
        self.url = f"http://{LOOPBACK}:{self._listener.getsockname()[1]}"
        self._start()

    @property
    def azure_endpoint(self) -> str:
        """For `AzureOpenAI(azure_endpoint=…)`, and langbatch's `azure_endpoint`."""
        return self.url

    @property
    def azure_v1_base_url(self) -> str:
        """For `OpenAI(base_url=…)` against Azure's v1 paths."""
        return f"{self.url}/openai/v1"

    @property
    def openai_base_url(self) -> str:
        """For `OpenAI(base_url=…)`."""
        return f"{self.url}/v1"

    @contextmanager
    def down(self) -> Iterator[None]:
        """An outage: in this block connections are refused. After it the service is back under the same
        address, with all that it had."""
        port = self._listener.getsockname()[1]
        self._stop()
        try:
            yield
        finally:
            self._listener = _listen(port)
            self._start()

    def _stop(self) -> None:
        """Stop listening; calls under way are broken off after a second."""
        self._server.should_exit = True
        self._thread.join()
        self._listener.close()

    def _start(self) -> None:
        self._server = _server(self.emulator)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [self._listener]}, name="langbatch-emulator"
        )
        self._thread.start()


def base_url(url: str, profile: Family) -> str:
    """What a user points a client at: the root for Azure, `/v1` for OpenAI."""
    return f"{url}/v1" if profile == "openai" else url


@contextmanager
def running_server(
    emulator: Emulator | None = None,
    *,
    config: EmulatorConfig | None = None,
    folder: Path | str | None = None,
    clock: Clock | None = None,
    port: int = 0,
) -> Iterator[RunningServer]:
    """An emulator listening in a thread, on a free port unless told otherwise, until the block ends.

    Without `config` its batches are instant: each stage passes when the batch is read again. A given
    `emulator` is left open afterwards, one made here is closed.
    """
    with ExitStack() as stack:
        if emulator is None:
            made = Emulator(config or EmulatorConfig.instant(), folder=folder, clock=clock)
            emulator = stack.enter_context(made)
        server = RunningServer(emulator, port)
        stack.callback(server._stop)
        yield server


def serve(
    *,
    port: int = 0,
    profile: Family | None = None,
    faults: Iterable[str] = (),
    folder: Path | str | None = None,
    seed: int | None = None,
    speed: float | None = None,
    timing: Timing | None = None,
    config: EmulatorConfig | None = None,
    on_ready: Callable[[str], None] | None = None,
) -> None:
    """Listen until SIGINT or SIGTERM. `on_ready` gets the base URL once connections are accepted.

    `config` (default: the demo preset) is the basis; other arguments that are given win over it.
    Raises OSError for a port in use and ValueError for a fault that does not exist, both before
    `on_ready`. Call it in the main thread; it returns after a signal, with everything closed.
    """
    basis = config or EmulatorConfig.demo()
    chosen = replace(
        basis,
        profile=profile or basis.profile,
        faults=(*basis.faults, *faults),
        seed=basis.seed if seed is None else seed,
        speed=basis.speed if speed is None else speed,
        timing=timing or basis.timing,
    )
    with ExitStack() as stack:
        listener = stack.enter_context(_listen(port))
        emulator = stack.enter_context(Emulator(chosen, folder=folder))
        server = _server(emulator)
        stack.enter_context(_stopped_by_signals(server))
        if on_ready is not None:
            # The kernel already queues connections; the loop picks them up a moment later.
            on_ready(base_url(f"http://{LOOPBACK}:{listener.getsockname()[1]}", chosen.profile))
        server.run(sockets=[listener])


@contextmanager
def _stopped_by_signals(server: uvicorn.Server) -> Iterator[None]:
    """SIGINT and SIGTERM end the loop. uvicorn's own way raises the signal anew after its shutdown,
    which would kill the process before the emulator's temporary folder is removed."""
    before = {number: signal.signal(number, server.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _listen(port: int) -> socket.socket:
    # With the protocol named, asyncio turns Nagle's algorithm off: 1.5 ms a call instead of 43 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # A restarted emulator gets its port back at once.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((LOOPBACK, port))
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _server(emulator: Emulator) -> uvicorn.Server:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol

    connections: dict[tuple[str, int], asyncio.Transport] = {}

    class Protocol(H11Protocol):
        """Keeps hold of each connection, so that a response can break it."""

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self._peer = transport.get_extra_info("peername")[:2]
            connections[self._peer] = transport

        def connection_lost(self, exc: Exception | None) -> None:
            connections.pop(self._peer, None)
            super().connection_lost(exc)

    class Server(uvicorn.Server):
        @contextmanager
        def capture_signals(self) -> Iterator[None]:
            yield  # `serve` has its own way with signals; in a thread there are none

    config = uvicorn.Config(
        application(emulator, connections),
        http=Protocol,
        ws="none",
        lifespan="off",
        loop="asyncio",
        log_config=None,
        log_level="critical",
        access_log=False,
        date_header=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
    return Server(config)


def application(
    emulator: Emulator, connections: dict[tuple[str, int], asyncio.Transport] | None = None
) -> ASGIApp:
    """The emulator as an ASGI application. Without `connections` nothing can be dropped mid-way but by
    ending a response early, which servers turn into a closed connection or a 500."""
    from anyio import from_thread, to_thread
    from starlette.requests import ClientDisconnect
    from starlette.requests import Request as HTTPRequest

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        http = HTTPRequest(scope, receive)
        stream = http.stream()

        async def next_block() -> bytes | None:
            return await anext(stream, None)

        def body() -> Iterator[bytes]:
            while (block := from_thread.run(next_block)) is not None:
                yield block

        try:
            response = await to_thread.run_sync(emulator.handle, _request_value(http, body()))
        except ClientDisconnect:
            return
        if response.delay_seconds:
            await asyncio.sleep(response.delay_seconds)
        if response.drop_connection is not None:
            await _drop(scope, receive, connections or {}, response.drop_connection)
            return
        await _send(response, send)

    return app


def _request_value(http: HTTPRequest, body: Iterable[bytes]) -> Request:
    return Request(
        method=http.method,
        path=http.url.path,
        query=dict(http.query_params),
        headers={key.lower(): value for key, value in http.headers.items()},
        body=body,
        base_url=str(http.base_url).rstrip("/"),
    )


async def _send(response: Response, send: Send) -> None:
    from anyio import to_thread

    length = response.length
    headers = [(key.lower().encode(), value.encode("latin-1", "replace")) for key, value in response.headers]
    if length is not None:
        headers.append((b"content-length", str(length).encode()))
    await send({"type": "http.response.start", "status": response.status, "headers": headers})
    blocks = response.blocks()
    end: Any = object()
    while (block := await to_thread.run_sync(next, blocks, end)) is not end:
        await send({"type": "http.response.body", "body": block, "more_body": True})
    if response.truncate_after is not None:
        # An application that returns in the middle of its response makes uvicorn close the connection.
        return
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _drop(
    scope: Scope, receive: Receive, connections: dict[tuple[str, int], asyncio.Transport], how: Drop
) -> None:
    """Break the client's connection; with `reset` the kernel sends RST instead of FIN."""
    client = scope.get("client")
    transport = connections.get(tuple(client[:2])) if client else None
    if transport is None:
        return
    if how == "reset":
        raw = transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
    # Until uvicorn has seen the loss, returning without a response would make it write a 500.
    while (await receive())["type"] != "http.disconnect":
        pass
