"""The emulator inside one process: whatever an HTTP client sends lands here instead of on the network.

openai 2 speaks `httpx` over `httpcore`, openai 3 speaks `httpx2` over `httpcore2`; respx patches only
the first pair. Both are patched here when they are installed, at the level of `httpcore`, so that every
client of either library is caught, whatever its transport settings.

respx reads a request's body whole before it is routed: use `running_server` for large uploads.
"""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from langbatch.emulator.service import Emulator
from langbatch.emulator.wire import Request, Response

if TYPE_CHECKING:
    import httpx

_LIBRARIES = ("httpcore", "httpcore2")
_EXTENSION = "langbatch.emulator.response"
_mockers: dict[str, type[Any]] = {}


@contextmanager
def routed(emulator: Emulator | None = None, *, host: str | None = None) -> Iterator[Emulator]:
    """Answer every HTTP request of this process from `emulator` until the block ends.

    With `host`, requests to other hosts fail as unmatched instead of being answered; nothing ever
    reaches the network. Without `emulator`, an instant one is made and closed again. Needs `respx`.
    """
    try:
        import respx
    except ImportError as absent:
        message = "routed() needs respx: install it, or use running_server() instead"
        raise ImportError(message) from absent
    from langbatch.emulator.config import EmulatorConfig

    with ExitStack() as stack:
        service = emulator or stack.enter_context(Emulator(EmulatorConfig.instant()))

        def answer(request: httpx.Request) -> httpx.Response:
            return _answer(service, request)

        for library in _LIBRARIES:
            if importlib.util.find_spec(library) is None:
                continue
            router = stack.enter_context(respx.mock(using=_mocker(library).name, assert_all_called=False))
            router.route(**({} if host is None else {"host": host})).mock(side_effect=answer)
        yield service


def _answer(emulator: Emulator, request: httpx.Request) -> httpx.Response:
    import httpx

    url = request.url
    response = emulator.handle(
        Request(
            method=request.method,
            path=url.path,
            query=dict(url.params),
            headers={key.lower(): value for key, value in request.headers.items()},
            body=(request.content,),
            base_url=f"{url.scheme}://{url.netloc.decode('ascii')}",
        )
    )
    # The body is not built here: respx would read it, and a broken connection has none.
    return httpx.Response(200, extensions={_EXTENSION: response})


def _mocker(library: str) -> type[Any]:
    """respx's mocker for one transport library, with broken connections in that library's own terms."""
    if library in _mockers:
        return _mockers[library]
    from respx.mocks import HTTPCoreMocker

    core: Any = importlib.import_module(library)

    class _Body:
        """A body that breaks off where the response says; readable in both worlds."""

        def __init__(self, response: Response) -> None:
            self._response = response

        def __iter__(self) -> Iterator[bytes]:
            yield from self._response.blocks()
            if self._response.truncate_after is not None:
                raise core.RemoteProtocolError("peer closed connection without sending complete message body")

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for block in self:
                yield block

    def rebuilt(response: Response) -> Any:
        if response.drop_connection == "reset":
            raise core.ReadError("[Errno 104] Connection reset by peer")
        if response.drop_connection == "close":
            raise core.RemoteProtocolError("Server disconnected without sending a response.")
        headers = [(key.encode(), value.encode("latin-1", "replace")) for key, value in response.headers]
        if response.length is not None:
            headers.append((b"content-length", str(response.length).encode()))
        return core.Response(status=response.status, headers=headers, content=_Body(response), extensions={})

    class RoutedMocker(HTTPCoreMocker):
        name = f"langbatch-{library}"
        targets = [target.replace("httpcore.", f"{library}.", 1) for target in HTTPCoreMocker.targets]  # noqa: RUF012

        @classmethod
        def from_sync_httpx_response(cls, httpx_response: Any, target: Any, **kwargs: Any) -> Any:
            response: Response = httpx_response.extensions[_EXTENSION]
            if response.delay_seconds:
                time.sleep(response.delay_seconds)
            return rebuilt(response)

        @classmethod
        async def from_async_httpx_response(cls, httpx_response: Any, target: Any, **kwargs: Any) -> Any:
            response: Response = httpx_response.extensions[_EXTENSION]
            if response.delay_seconds:
                await asyncio.sleep(response.delay_seconds)
            return rebuilt(response)

    _mockers[library] = RoutedMocker
    return RoutedMocker
