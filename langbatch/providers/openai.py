"""The nine verbs over the Files and Batches services, as OpenAI has them; Azure differs in data only."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, TypeVar
from urllib.parse import quote

from langbatch.errors import (
    BadDownload,
    FateUnknown,
    ProviderError,
    QuotaFull,
    Refused,
)
from langbatch.providers import wire
from langbatch.providers.credentials import Access, Credentials
from langbatch.providers.endpoints import OPENAI_BASE_URL, is_loopback, read_address
from langbatch.providers.exchange import (
    CONNECT_SECONDS,
    CUT_SHORT,
    TRANSFER_SECONDS,
    Exchange,
    Reply,
    header_map,
)
from langbatch.providers.limits import OPENAI_LIMITS
from langbatch.records import (
    ENDPOINT_PATHS,
    BatchPage,
    FilePage,
    Limits,
    RemoteBatch,
    RemoteFile,
    Target,
)

_log = logging.getLogger(__name__)

#: How long the service keeps an input file that asks for expiry: 14 days is the least that Azure's guide
#: allows, and within OpenAI's range. Without it an Azure resource holds 500 input files, with it 10,000.
INPUT_FILE_SECONDS = 1_209_600
BATCHES_PER_PAGE = 100
#: What metadata may hold (wire reference, 3).
_METADATA_PAIRS, _METADATA_KEY, _METADATA_VALUE = 16, 64, 512

_Parsed = TypeVar("_Parsed")


@dataclass(frozen=True, slots=True)
class Service:
    """What sets one service apart from another that speaks the same wire protocol."""

    name: str
    limits: Limits
    waits_for_file: bool
    #: The create body's `endpoint`.
    endpoint: str
    knows_expiry: bool


class FilesAndBatches:
    """`Provider` over an `Exchange`. Safe for several threads."""

    def __init__(self, service: Service, exchange: Exchange) -> None:
        self._service = service
        self._exchange = exchange
        self._asks_expiry = service.knows_expiry
        self._expiry_honoured: bool | None = None

    @property
    def name(self) -> str:
        return self._service.name

    @property
    def limits(self) -> Limits:
        return self._service.limits

    @property
    def waits_for_file(self) -> bool:
        return self._service.waits_for_file

    @property
    def expiry_honoured(self) -> bool | None:
        """Whether the last upload's reply echoed the expiry asked for; None while nothing is known."""
        return self._expiry_honoured

    # ------------------------------------------------------------ files

    def upload(self, filename: str, stream: BinaryIO, size_bytes: int) -> RemoteFile:
        """Sends `stream` from its beginning. A refusal that is about expiry is answered by one upload
        without it: a definite 400 says that nothing was stored."""
        found_bytes = stream.seek(0, os.SEEK_END)
        if found_bytes != size_bytes:
            raise Refused(
                f"the payload has {found_bytes} bytes instead of {size_bytes}; nothing was sent",
                code="payload_changed",
            )
        try:
            return self._upload(filename, stream, with_expiry=self._asks_expiry)
        except Refused as refusal:
            if not (self._asks_expiry and _is_about_expiry(refusal)):
                raise
        self._asks_expiry = False
        _log.warning("%s does not take an expiry on files; they are uploaded without", self.name)
        return self._upload(filename, stream, with_expiry=False)

    def _upload(self, filename: str, stream: BinaryIO, *, with_expiry: bool) -> RemoteFile:
        form: dict[str, Any] = {"purpose": "batch"}
        if with_expiry:
            form["expires_after"] = {"anchor": "created_at", "seconds": INPUT_FILE_SECONDS}
        stream.seek(0)
        reply = self._exchange.call(
            "upload",
            "post",
            "/files",
            form=form,
            # Azure rejects a file part without a content type. The transport streams it in 64 KiB blocks.
            files=[("file", (filename, stream, "application/octet-stream"))],
            seconds=TRANSFER_SECONDS,
        )
        document, file = self._read(
            reply, lambda body: _both(body, lambda found: wire.remote_file(found, reply.secrets))
        )
        if with_expiry:
            # Null is no echo: some services fill it in later, some ignore the wish.
            self._expiry_honoured = wire.file_expires_at(document) is not None
        return file

    def get_file(self, file_id: str) -> RemoteFile:
        reply = self._exchange.call("get_file", "get", f"/files/{_segment(file_id)}")
        return self._read(reply, lambda body: wire.remote_file(wire.json_object(body), reply.secrets))

    def list_files(self, after: str | None = None) -> FilePage:
        query = {"purpose": "batch", **({"after": after} if after else {})}
        reply = self._exchange.call("list_files", "get", "/files", query=query)
        return self._read(reply, lambda body: wire.file_page(body, reply.headers, reply.secrets))

    def delete_file(self, file_id: str) -> None:
        reply = self._exchange.call("delete_file", "delete", f"/files/{_segment(file_id)}")
        if not reply.body.strip():
            return  # a bare 204
        document = self._read(reply, wire.json_object)
        if document.get("deleted") is False:
            raise FateUnknown("the service says that the file was not deleted")

    def download(
        self, file_id: str, sink: BinaryIO, on_bytes: Callable[[int, int | None], None] | None = None
    ) -> int:
        """Bytes written. Anything the sink raises (a full disk) comes through as it is."""
        done = 0
        with self._exchange.open(
            "download",
            "get",
            f"/files/{_segment(file_id)}/content",
            # Compressed, the length could not be checked.
            headers={"Accept": "application/binary", "Accept-Encoding": "identity"},
            seconds=TRANSFER_SECONDS,
        ) as response:
            headers = header_map(response)
            plain = headers.get("content-encoding", "identity").strip().lower() in ("", "identity")
            total = _length(headers) if plain else None
            try:
                for block in self._exchange.blocks(response, decoded=not plain):
                    if not done and not block.startswith(b"{"):
                        raise BadDownload(f"not a results file: {wire.describe_body(block)}")
                    sink.write(block)
                    done += len(block)
                    if on_bytes is not None:
                        on_bytes(done, total)
            except FateUnknown as trouble:
                if trouble.code != CUT_SHORT:
                    raise
                # The connection was closed in order, but before the promised end.
                raise BadDownload(f"the file ended after {done} bytes: {trouble.message}") from None
        if total is not None and done != total:
            raise BadDownload(f"the file has {done} bytes instead of {total}")
        return done

    # ------------------------------------------------------------ batches

    def create_batch(self, input_file_id: str, metadata: Mapping[str, str]) -> RemoteBatch:
        _check_metadata(metadata)
        form: dict[str, Any] = {
            "input_file_id": input_file_id,
            "endpoint": self._service.endpoint,
            "completion_window": "24h",
        }
        if metadata:
            form["metadata"] = dict(metadata)
        reply = self._exchange.call("create_batch", "post", "/batches", form=form)
        batch = self._batch(reply)
        if batch.input_file_id not in (None, input_file_id):
            raise FateUnknown(
                f"the reply to the create is about a batch on another input file ({batch.id})",
                code="reply_mismatch",
            )
        return replace(batch, quota_tokens=wire.quota_tokens(reply.headers))

    def get_batch(self, batch_id: str) -> RemoteBatch:
        return self._this_batch(
            batch_id, self._exchange.call("get_batch", "get", f"/batches/{_segment(batch_id)}")
        )

    def list_batches(self, after: str | None = None) -> BatchPage:
        query = {"limit": BATCHES_PER_PAGE, **({"after": after} if after else {})}
        reply = self._exchange.call("list_batches", "get", "/batches", query=query)
        return self._read(reply, lambda body: wire.batch_page(body, reply.headers, reply.secrets))

    def cancel_batch(self, batch_id: str) -> RemoteBatch:
        path = f"/batches/{_segment(batch_id)}/cancel"
        return self._this_batch(batch_id, self._exchange.call("cancel_batch", "post", path))

    def close(self) -> None:
        self._exchange.close()

    # ------------------------------------------------------------ replies

    def _batch(self, reply: Reply) -> RemoteBatch:
        return self._read(reply, lambda body: wire.remote_batch(wire.json_object(body), reply.secrets))

    def _this_batch(self, batch_id: str, reply: Reply) -> RemoteBatch:
        batch = self._batch(reply)
        if batch.id != batch_id:
            # Believed, its counts, files and end would be taken for the asked one's.
            raise FateUnknown("the reply is about another batch", code="reply_mismatch")
        return batch

    def _read(self, reply: Reply, parse: Callable[[bytes], _Parsed]) -> _Parsed:
        """A 2xx that cannot be read leaves open what the service did."""
        try:
            return parse(reply.body)
        except wire.Garbled as problem:
            text = str(problem)
        raise FateUnknown(text, code="garbled_reply", status=200)


def open_provider(target: Target, credentials: Credentials) -> FilesAndBatches:
    """A provider for a target of OpenAI's own kind."""
    settings = target.settings
    service = Service(
        name="openai",
        limits=OPENAI_LIMITS,
        waits_for_file=False,
        endpoint=f"/v1{ENDPOINT_PATHS[target.kind]}",
        knows_expiry=True,
    )
    access = Access(credentials, key_header="Authorization")
    if credentials.kind == "client":
        return FilesAndBatches(
            service, Exchange(credentials.client, access, host=target.host, owns_client=False)
        )
    client = plain_client(settings.get("base_url", OPENAI_BASE_URL), {})
    headers = {
        "OpenAI-Organization": settings.get("organization"),
        "OpenAI-Project": settings.get("project"),
    }
    return FilesAndBatches(service, Exchange(client, access, host=target.host, headers=headers))


def plain_client(base_url: str, query: Mapping[str, str]) -> Any:
    """An `OpenAI` client that reads nothing from the environment but proxies; each request brings its key."""
    import openai

    return openai.OpenAI(
        api_key="unused",
        base_url=base_url,
        default_query=dict(query),
        max_retries=0,
        http_client=quiet_transport(base_url),
    )


def quiet_transport(base_url: str) -> Any:
    """The SDK's own transport class (httpx or httpx2), without redirects. Proxies and certificates are taken
    from the environment, except for a service on this machine, which no proxy could reach."""
    import openai

    return openai.DefaultHttpxClient(
        follow_redirects=False,
        timeout=openai.Timeout(TRANSFER_SECONDS, connect=CONNECT_SECONDS),
        trust_env=not is_loopback(read_address(base_url, "base_url").host),
    )


def _both(body: bytes, parse: Callable[[Mapping[str, Any]], _Parsed]) -> tuple[dict[str, Any], _Parsed]:
    document = wire.json_object(body)
    return document, parse(document)


def _is_about_expiry(refusal: ProviderError) -> bool:
    """Floors differ by resource, and gateways may not know the field (wire reference, 2)."""
    if isinstance(refusal, QuotaFull) or refusal.status not in (400, 422):
        return False
    return "expire" in f"{refusal.code} {refusal.message}".lower()


def _check_metadata(metadata: Mapping[str, str]) -> None:
    fits = len(metadata) <= _METADATA_PAIRS and all(
        isinstance(key, str)
        and isinstance(value, str)
        and len(key) <= _METADATA_KEY
        and len(value) <= _METADATA_VALUE
        for key, value in metadata.items()
    )
    if not fits:
        raise Refused("the metadata does not fit; nothing was sent", code="invalid_metadata")


def _segment(identity: str) -> str:
    """An id as one path segment: ids come from services and from the command line."""
    if not identity or identity in (".", ".."):
        raise Refused("an empty or relative id cannot be asked for; nothing was sent", code="invalid_id")
    return quote(identity, safe="")


def _length(headers: Mapping[str, str]) -> int | None:
    text = headers.get("content-length", "")
    return int(text) if text.isascii() and text.isdigit() else None
