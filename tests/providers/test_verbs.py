"""Each verb over real HTTP: what is sent, and what every odd answer becomes."""

from __future__ import annotations

import io
import logging
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import openai
import pytest

from langbatch.config.resolving import resolve_target
from langbatch.errors import (
    AccessRefused,
    BadDownload,
    FateUnknown,
    ProviderError,
    QuotaFull,
    Refused,
    RemoteNotFound,
    Throttled,
    Unreachable,
)
from langbatch.providers import open_provider
from langbatch.providers.base import Provider
from langbatch.providers.credentials import Access, Credentials
from langbatch.providers.exchange import Exchange
from langbatch.providers.openai import FilesAndBatches, plain_client
from langbatch.records import EndpointKind
from providers.scripted_service import Answer, ScriptedService

KEY = "a-key-of-mine-0123"
FILE = {"id": "file-1", "object": "file", "bytes": 3, "filename": "a.jsonl", "status": "processed"}
BATCH = {"id": "batch_1", "object": "batch", "status": "validating", "input_file_id": "file-1"}


@contextmanager
def opened(
    service: ScriptedService,
    provider: str = "azure",
    *,
    kind: EndpointKind = "chat_completions",
    environ: dict[str, str] | None = None,
    **arguments: Any,
) -> Iterator[Provider]:
    if provider == "azure":
        arguments = {"azure_endpoint": service.url, "api_version": "2024-10-21", **arguments}
    else:
        arguments = {"base_url": f"{service.url}/v1", **arguments}
    if not set(arguments) & {"azure_ad_token", "azure_ad_token_provider", "credential"}:
        arguments.setdefault("api_key", KEY)
    target, credentials = resolve_target(provider, kind, environ=environ or {}, **arguments)
    opened_provider = open_provider(target, credentials)
    try:
        yield opened_provider
    finally:
        opened_provider.close()


CALLS: dict[str, Callable[[Provider], object]] = {
    "upload": lambda p: p.upload("a.jsonl", io.BytesIO(b"{}\n"), 3),
    "get_file": lambda p: p.get_file("file-1"),
    "list_files": lambda p: p.list_files(),
    "delete_file": lambda p: p.delete_file("file-1"),
    "create_batch": lambda p: p.create_batch("file-1", {"tag": "t"}),
    "get_batch": lambda p: p.get_batch("batch_1"),
    "list_batches": lambda p: p.list_batches(),
    "cancel_batch": lambda p: p.cancel_batch("batch_1"),
    "download": lambda p: p.download("file-1", io.BytesIO()),
}
every_verb = pytest.mark.parametrize("verb", CALLS)

FAMILIES: dict[str, tuple[str, dict[str, Any], str]] = {
    "dated": ("azure", {"api_version": "2025-04-01-preview"}, "/openai"),
    "v1": ("azure", {"api_version": "v1"}, "/openai/v1"),
    "openai": ("openai", {}, "/v1"),
}


# ---------------------------------------------------------------- what is sent


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(
    ("verb", "answer", "method", "path"),
    [
        ("upload", FILE, "POST", "/files"),
        ("get_file", FILE, "GET", "/files/file-1"),
        ("list_files", {"data": [FILE], "has_more": False}, "GET", "/files"),
        ("delete_file", {"id": "file-1", "deleted": True}, "DELETE", "/files/file-1"),
        ("create_batch", BATCH, "POST", "/batches"),
        ("get_batch", BATCH, "GET", "/batches/batch_1"),
        ("list_batches", {"data": [BATCH], "has_more": False}, "GET", "/batches"),
        ("cancel_batch", BATCH, "POST", "/batches/batch_1/cancel"),
        ("download", b"{}\n", "GET", "/files/file-1/content"),
    ],
)
def test_every_verb_is_one_exchange_at_resource_level(
    service: ScriptedService, family: str, verb: str, answer: Any, method: str, path: str
) -> None:
    name, arguments, base = FAMILIES[family]
    service.will(Answer(201 if method == "POST" else 200, answer))
    with opened(service, name, **arguments) as provider:
        CALLS[verb](provider)
    (asked,) = service.asked
    assert (asked.method, asked.path) == (method, base + path)
    version = {"api-version": ["2025-04-01-preview"]} if family == "dated" else {}
    assert asked.query.items() >= version.items()
    assert family == "dated" or "api-version" not in asked.query
    if name == "azure":
        assert asked.headers["api-key"] == KEY
        assert "authorization" not in asked.headers
    else:
        assert asked.headers["authorization"] == f"Bearer {KEY}"
        assert "api-key" not in asked.headers


def test_the_preview_of_v1_is_named_in_the_query(service: ScriptedService) -> None:
    service.will(Answer(200, BATCH))
    with opened(service, api_version="preview") as provider:
        provider.get_batch("batch_1")
    assert service.asked[0].path == "/openai/v1/batches/batch_1"
    assert service.asked[0].query == {"api-version": ["preview"]}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_sdks_own_environment_variables_change_nothing(
    service: ScriptedService, family: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("AZURE_OPENAI_AD_TOKEN", "AZURE_OPENAI_API_KEY", "OPENAI_API_KEY", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(variable, "from-the-environment")
    monkeypatch.setenv("OPENAI_ORG_ID", "from-the-environment")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "from-the-environment")
    monkeypatch.setenv("OPENAI_API_VERSION", "2023-01-01")
    name, arguments, _ = FAMILIES[family]
    service.will(Answer(200, BATCH))
    with opened(service, name, **arguments) as provider:
        provider.get_batch("batch_1")
    assert "from-the-environment" not in str(service.asked[0])
    assert "2023-01-01" not in str(service.asked[0])


def test_organization_and_project_are_sent_where_given(service: ScriptedService) -> None:
    service.will(Answer(200, BATCH))
    with opened(service, "openai", organization="org-1", project="proj-1") as provider:
        provider.get_batch("batch_1")
    headers = service.asked[0].headers
    assert (headers["openai-organization"], headers["openai-project"]) == ("org-1", "proj-1")


@pytest.mark.parametrize(
    ("family", "kind", "endpoint"),
    [
        ("dated", "chat_completions", "/chat/completions"),
        ("dated", "embeddings", "/embeddings"),
        ("v1", "chat_completions", "/v1/chat/completions"),
        ("v1", "responses", "/v1/responses"),
        ("openai", "completions", "/v1/completions"),
    ],
)
def test_a_create_names_file_endpoint_window_and_tag(
    service: ScriptedService, family: str, kind: EndpointKind, endpoint: str
) -> None:
    name, arguments, _ = FAMILIES[family]
    service.will(Answer(201, BATCH))
    with opened(service, name, kind=kind, **arguments) as provider:
        batch = provider.create_batch("file-1", {"tag": "t"})
    assert batch.id == "batch_1"
    assert service.asked[0].json == {
        "input_file_id": "file-1",
        "endpoint": endpoint,
        "completion_window": "24h",
        "metadata": {"tag": "t"},
    }


@pytest.mark.parametrize(
    "metadata",
    [
        {str(n): "x" for n in range(17)},
        {"k" * 65: "x"},
        {"k": "x" * 513},
        {"k": 5},
    ],
)
def test_metadata_that_cannot_fit_is_refused_before_sending(
    service: ScriptedService, metadata: dict[str, Any]
) -> None:
    with opened(service) as provider, pytest.raises(Refused):
        provider.create_batch("file-1", metadata)
    assert service.asked == []


def test_an_upload_is_a_batch_file_with_name_and_content_type(service: ScriptedService) -> None:
    service.will(Answer(201, FILE))
    with opened(service) as provider:
        file = provider.upload("lb-x.jsonl", io.BytesIO(b'{"a":1}\n'), 8)
    body = service.asked[0].body
    assert file.id == "file-1"
    assert b'name="purpose"\r\n\r\nbatch\r\n' in body
    assert b'filename="lb-x.jsonl"' in body
    assert b'Content-Type: application/octet-stream\r\n\r\n{"a":1}\n\r\n' in body
    assert b"expires_after" not in body  # 2024-10-21 does not know it


def test_an_upload_starts_at_the_streams_beginning(service: ScriptedService) -> None:
    service.will(Answer(200, FILE))
    stream = io.BytesIO(b"0123456789")
    stream.read(4)
    with opened(service) as provider:
        provider.upload("a.jsonl", stream, 10)
    assert b"\r\n\r\n0123456789\r\n" in service.asked[0].body


def test_a_payload_of_another_size_is_not_sent(service: ScriptedService) -> None:
    with opened(service) as provider, pytest.raises(Refused) as refusal:
        provider.upload("a.jsonl", io.BytesIO(b"0123"), 5)
    assert refusal.value.code == "payload_changed"
    assert service.asked == []


@pytest.mark.parametrize("family", FAMILIES)
def test_an_upload_asks_for_expiry_where_the_version_knows_it(service: ScriptedService, family: str) -> None:
    name, arguments, _ = FAMILIES[family]
    service.will(Answer(200, {**FILE, "expires_at": 1_800_000_000}), Answer(200, FILE))
    with opened(service, name, **arguments) as provider:
        assert isinstance(provider, FilesAndBatches)
        seen = [provider.expiry_honoured]
        for _ in range(2):
            CALLS["upload"](provider)
            seen.append(provider.expiry_honoured)
    assert seen == [None, True, False]
    body = service.asked[0].body
    assert b'name="expires_after[anchor]"\r\n\r\ncreated_at\r\n' in body
    assert b'name="expires_after[seconds]"\r\n\r\n1209600\r\n' in body


def test_a_refused_expiry_does_not_fail_the_upload(
    service: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    refusal = {
        "error": {"code": "invalidPayload", "message": "expires_after.seconds must be at least 2592000"}
    }
    service.will(Answer(400, refusal), Answer(201, FILE), Answer(201, FILE))
    with opened(service, api_version="v1") as provider:
        assert provider.upload("a.jsonl", io.BytesIO(b"{}\n"), 3).id == "file-1"
        provider.upload("a.jsonl", io.BytesIO(b"{}\n"), 3)
    assert [b"expires_after" in asked.body for asked in service.asked] == [True, False, False]
    assert "expiry" in caplog.text


def test_a_full_file_quota_is_not_taken_for_a_refused_expiry(service: ScriptedService) -> None:
    message = "The quota for files without expiry is reached. The maximum is 500."
    service.will(Answer(400, {"error": {"code": "quotaExceeded", "message": message}}))
    with opened(service, api_version="v1") as provider, pytest.raises(QuotaFull):
        CALLS["upload"](provider)
    assert len(service.asked) == 1


def test_pages_are_asked_for_with_limit_purpose_and_cursor(service: ScriptedService) -> None:
    service.will(Answer(200, {"data": []}), Answer(200, {"data": []}))
    with opened(service) as provider:
        assert provider.list_batches("batch_7").has_more is None
        provider.list_files("file-7")
    assert service.asked[0].query == {"limit": ["100"], "after": ["batch_7"], "api-version": ["2024-10-21"]}
    assert service.asked[1].query == {
        "purpose": ["batch"],
        "after": ["file-7"],
        "api-version": ["2024-10-21"],
    }


def test_a_page_carries_the_services_clock(service: ScriptedService) -> None:
    service.will(Answer(200, {"value": [BATCH]}))
    with opened(service) as provider:
        page = provider.list_batches()
    assert page.server_time is not None
    assert page.batches[0].id == "batch_1"


@pytest.mark.parametrize("identity", ["../batches", "a/b?c=d", "a b"])
def test_an_id_stays_one_path_segment(service: ScriptedService, identity: str) -> None:
    service.will(Answer(200, FILE))
    with opened(service) as provider:
        provider.get_file(identity)
    assert service.asked[0].path.startswith("/openai/files/")
    assert service.asked[0].path.count("/") == 3
    assert service.asked[0].query == {"api-version": ["2024-10-21"]}


@pytest.mark.parametrize("identity", ["", ".", ".."])
def test_an_id_that_would_change_the_path_is_not_sent(service: ScriptedService, identity: str) -> None:
    with opened(service) as provider, pytest.raises(Refused):
        provider.delete_file(identity)
    assert service.asked == []


def test_a_proxy_from_the_environment_is_used(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", service.url)
    service.will(Answer(200, BATCH))
    with opened(service, azure_endpoint="http://far.invalid", allow_http=True) as provider:
        provider.get_batch("batch_1")
    assert service.asked[0].headers["host"] == "far.invalid"


def test_a_service_on_this_machine_is_not_sought_behind_a_proxy(
    service: ScriptedService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.setenv("http_proxy", "http://proxy.invalid:1")
    service.will(Answer(200, BATCH))
    with opened(service) as provider:
        assert provider.get_batch("batch_1").id == "batch_1"


# ---------------------------------------------------------------- one exchange, whatever happens


@every_verb
def test_a_lost_reply_is_not_followed_by_another_request(service: ScriptedService, verb: str) -> None:
    service.will(Answer(silent=True), Answer(200, {**FILE, **BATCH}))
    with opened(service) as provider, pytest.raises(FateUnknown):
        CALLS[verb](provider)
    assert len(service.asked) == 1


@every_verb
def test_a_reset_leaves_the_fate_open(service: ScriptedService, verb: str) -> None:
    service.will(Answer(reset=True))
    with opened(service) as provider, pytest.raises(FateUnknown):
        CALLS[verb](provider)
    assert len(service.asked) == 1


@every_verb
@pytest.mark.parametrize("status", [302, 307, 308])
def test_a_redirect_is_not_followed(service: ScriptedService, verb: str, status: int) -> None:
    service.will(Answer(status, b"", {"Location": f"{service.url}/elsewhere"}), Answer(200, BATCH))
    with opened(service) as provider, pytest.raises(FateUnknown) as trouble:
        CALLS[verb](provider)
    assert len(service.asked) == 1
    assert trouble.value.status == status


@every_verb
@pytest.mark.parametrize("status", [408, 409, 429, 500, 503])
def test_a_status_that_the_sdk_would_retry_is_told_at_once(
    service: ScriptedService, verb: str, status: int
) -> None:
    service.will(Answer(status, b"", {"x-should-retry": "true", "Retry-After": "1"}), Answer(200, BATCH))
    with opened(service) as provider, pytest.raises(ProviderError) as trouble:
        CALLS[verb](provider)
    assert len(service.asked) == 1
    assert trouble.value.status == status
    if isinstance(trouble.value, Throttled | FateUnknown) and status != 409:
        assert trouble.value.retry_after_seconds == 1.0


@every_verb
def test_a_refused_connection_means_nothing_happened(verb: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody can take the port meanwhile
        target, credentials = resolve_target(
            "openai",
            "chat_completions",
            environ={},
            base_url=f"http://127.0.0.1:{taken.getsockname()[1]}/v1",
            api_key=KEY,
        )
        provider = open_provider(target, credentials)
        with pytest.raises(Unreachable):
            CALLS[verb](provider)
        provider.close()


def test_a_failed_tls_handshake_means_nothing_happened(service: ScriptedService) -> None:
    encrypted = service.url.replace("http:", "https:")
    with opened(service, azure_endpoint=encrypted) as provider, pytest.raises(Unreachable):
        CALLS["create_batch"](provider)
    assert service.asked == []


def test_a_silent_service_leaves_the_fate_open(service: ScriptedService) -> None:
    service.will(Answer(hang=True))
    access = Access(Credentials("key", api_key=KEY), key_header="Authorization")
    exchange = Exchange(plain_client(f"{service.url}/v1", {}), access, host="here")
    with pytest.raises(FateUnknown):
        exchange.call("create_batch", "post", "/batches", form={"a": 1}, seconds=0.2)
    assert len(service.asked) == 1
    exchange.close()


@pytest.mark.parametrize(
    "verb", ["upload", "get_file", "list_files", "create_batch", "get_batch", "list_batches"]
)
@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>sign in</html>", {"Content-Type": "text/html"}),
        Answer(200, b'{"id": "batch_1", "input_fi'),
        Answer(200, b'{"id": "batch_1", "input_file_id": "file-1"}', cut_to=20),
        Answer(200, b'{"id": "batch_1", "input_file_id": "file-1"}', cut_to=20, chunked=True),
        Answer(200, {"id": None, "status": "validating"}),
        Answer(201, {"error": {"code": "oops"}}),
        Answer(200, [BATCH]),
        Answer(204),
        Answer(200, b"not gzip at all", {"Content-Encoding": "gzip"}),
    ],
    ids=["html", "truncated", "short", "short chunk", "null id", "error", "array", "empty", "bad gzip"],
)
def test_a_garbled_success_leaves_the_fate_open(service: ScriptedService, verb: str, answer: Answer) -> None:
    service.will(answer)
    with opened(service) as provider, pytest.raises(FateUnknown):
        CALLS[verb](provider)
    assert len(service.asked) == 1


def test_a_create_reply_about_another_file_leaves_the_fate_open(service: ScriptedService) -> None:
    service.will(Answer(200, {**BATCH, "input_file_id": "file-9"}))
    with opened(service) as provider, pytest.raises(FateUnknown) as trouble:
        provider.create_batch("file-1", {})
    assert trouble.value.code == "reply_mismatch"


@pytest.mark.parametrize(
    ("answer", "family"), [(Answer(204), None), (Answer(200, {"deleted": False}), FateUnknown)]
)
def test_a_delete_believes_an_empty_yes_and_no_other_no(
    service: ScriptedService, answer: Answer, family: type[ProviderError] | None
) -> None:
    service.will(answer)
    with opened(service) as provider:
        if family is None:
            provider.delete_file("file-1")
        else:
            with pytest.raises(family):
                provider.delete_file("file-1")


def test_cancelling_a_completed_batch_is_refused(service: ScriptedService) -> None:
    message = "Cannot cancel a batch with status 'completed'."
    service.will(Answer(409, {"error": {"code": None, "message": message}}))
    with opened(service, "openai") as provider, pytest.raises(Refused) as refusal:
        provider.cancel_batch("batch_1")
    assert message in refusal.value.message


def test_an_error_names_no_key_even_in_its_chain(service: ScriptedService) -> None:
    service.will(Answer(401, {"error": {"code": "401", "message": f"Access denied for {KEY}"}}))
    with opened(service) as provider, pytest.raises(AccessRefused) as refusal:
        CALLS["create_batch"](provider)
    assert KEY not in repr(refusal.value) + str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__context__ is None


def test_a_secret_echoed_in_a_success_is_masked(service: ScriptedService) -> None:
    fault = {"code": f"bad-{KEY}", "message": f"\x1b[31mno deployment for {KEY}"}
    failed = {**BATCH, "status": "failed", "errors": {"data": [fault]}}
    details = {**FILE, "status": "error", "status_details": f"refused {KEY}"}
    service.will(
        Answer(200, failed),
        Answer(200, {"data": [failed]}),
        Answer(200, details),
        Answer(200, {"data": [details]}),
    )
    with opened(service) as provider:
        answers = [
            provider.get_batch("batch_1"),
            *provider.list_batches().batches,
            provider.get_file("file-1"),
            *provider.list_files().files,
        ]
    assert len(answers) == 4
    assert KEY not in repr(answers)
    assert "no deployment for ***" in repr(answers)
    assert "x1b" not in repr(answers)


def test_a_wrong_path_is_told_from_a_missing_file(service: ScriptedService) -> None:
    service.will(
        Answer(404, {"error": {"code": "404", "message": "Resource not found"}}),
        Answer(404, {"error": {"code": "notFound", "message": "no file"}}),
    )
    with opened(service) as provider:
        with pytest.raises(RemoteNotFound) as route:
            provider.get_file("file-1")
        with pytest.raises(RemoteNotFound) as missing:
            provider.get_file("file-1")
    assert (route.value.code, missing.value.code) == ("404", "notFound")


# ---------------------------------------------------------------- downloads


def test_a_download_arrives_byte_for_byte(service: ScriptedService, tmp_path: Path) -> None:
    content = '{"a": "\u2028\x85\\r"}\r\n'.encode() * 40_000
    service.will(Answer(200, content))
    progress: list[tuple[int, int | None]] = []
    with opened(service) as provider, (tmp_path / "x").open("wb") as sink:
        assert provider.download("file-1", sink, lambda done, total: progress.append((done, total))) == len(
            content
        )
    assert (tmp_path / "x").read_bytes() == content
    assert progress[-1] == (len(content), len(content))
    assert service.asked[0].headers["accept-encoding"] == "identity"


def test_a_download_without_a_length_is_taken_to_its_end(service: ScriptedService) -> None:
    service.will(Answer(200, b"{}\n", chunked=True))
    sink = io.BytesIO()
    totals: list[int | None] = []
    with opened(service) as provider:
        provider.download("file-1", sink, lambda done, total: totals.append(total))
    assert sink.getvalue() == b"{}\n"
    assert totals == [None]


def test_an_empty_file_is_a_file(service: ScriptedService) -> None:
    service.will(Answer(200, b""))
    with opened(service) as provider:
        assert provider.download("file-1", io.BytesIO()) == 0


def test_a_compressed_download_is_unpacked_and_its_length_not_compared(service: ScriptedService) -> None:
    import gzip

    service.will(Answer(200, gzip.compress(b"{}\n" * 5000), {"Content-Encoding": "gzip"}))
    sink = io.BytesIO()
    with opened(service) as provider:
        assert provider.download("file-1", sink) == 15_000
    assert sink.getvalue() == b"{}\n" * 5000


@pytest.mark.parametrize(
    "answer",
    [
        Answer(200, b"<html>busy</html>"),
        Answer(200, b"\n{}\n"),
        Answer(200, b"{}\n" * 50_000, cut_to=100_000),
        Answer(200, b"{}\n", cut_to=0),
        Answer(200, b"{}\n" * 50_000, cut_to=99_999, chunked=True),
        Answer(200, b"{not gzip", {"Content-Encoding": "gzip"}),
    ],
    ids=["html", "not an object", "short", "nothing", "short chunk", "bad gzip"],
)
def test_a_download_that_is_not_the_file_is_bad(service: ScriptedService, answer: Answer) -> None:
    service.will(answer)
    with opened(service) as provider, pytest.raises(BadDownload):
        provider.download("file-1", io.BytesIO())


class _FullDisk(io.BytesIO):
    def write(self, data: Any, /) -> int:
        raise OSError(28, "No space left on device")


def test_a_full_disk_is_not_taken_for_the_services_trouble(service: ScriptedService) -> None:
    service.will(Answer(200, b"{}\n"))
    with opened(service) as provider, pytest.raises(OSError, match="No space"):
        provider.download("file-1", _FullDisk())


class _Zeros(io.RawIOBase):
    """A big file that is nowhere: its bytes are made when they are read."""

    def __init__(self, size: int) -> None:
        self._size, self._at = size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._at = offset if whence == 0 else self._at + offset if whence == 1 else self._size + offset
        return self._at

    def read(self, size: int = -1, /) -> bytes:
        assert 0 < size <= 1 << 20, "read whole instead of in blocks"
        block = bytes(min(size, self._size - self._at))
        self._at += len(block)
        return block


def test_an_upload_needs_no_memory_for_its_size(service: ScriptedService) -> None:
    size = 48 * 1024 * 1024
    service.will(Answer(200, FILE), Answer(200, FILE))
    with opened(service, api_version="v1") as provider:
        CALLS["upload"](provider)
        stream: Any = _Zeros(size)
        tracemalloc.start()
        provider.upload("big.jsonl", stream, size)
        peak_bytes = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert service.asked[1].body_bytes > size
    assert peak_bytes < 8 * 1024 * 1024


class _Counter:
    def __init__(self) -> None:
        self.most = self.count = 0

    def write(self, data: bytes) -> int:
        self.most = max(self.most, len(data))
        self.count += 1
        return len(data)


def test_a_download_comes_in_blocks_of_bounded_size(service: ScriptedService) -> None:
    size = 8 * 1024 * 1024
    service.will(Answer(200, b"{" + b"x" * (size - 1)))
    counter: Any = _Counter()
    sink: BinaryIO = counter
    with opened(service) as provider:
        assert provider.download("file-1", sink) == size
    assert counter.most == 256 * 1024
    assert counter.count <= 40


# ---------------------------------------------------------------- tokens


class _Credential:
    """An azure-identity look-alike that hands out numbered tokens."""

    def __init__(self) -> None:
        self.scopes: list[str] = []

    def get_token(self, *scopes: str, **_: object) -> Any:
        self.scopes += scopes

        class Token:
            token = f"token-{len(self.scopes)}"
            expires_on = 4_000_000_000

        return Token()


def test_a_refused_token_is_renewed_once_and_the_call_repeated(service: ScriptedService) -> None:
    credential = _Credential()
    service.will(Answer(401, {"statusCode": 401, "message": "expired"}), Answer(200, FILE), Answer(200, FILE))
    with opened(service, credential=credential, azure_scope="https://ai.azure.com/.default") as provider:
        CALLS["upload"](provider)
        CALLS["upload"](provider)
    assert [asked.headers["authorization"] for asked in service.asked] == [
        "Bearer token-1",
        "Bearer token-2",
        "Bearer token-2",
    ]
    assert all("api-key" not in asked.headers for asked in service.asked)
    assert b"{}\n" in service.asked[1].body
    assert credential.scopes == ["https://ai.azure.com/.default"] * 2


@every_verb
def test_a_second_401_is_final(service: ScriptedService, verb: str) -> None:
    service.will(*[Answer(401, {"statusCode": 401, "message": "audience"})] * 3)
    with opened(service, credential=_Credential()) as provider, pytest.raises(AccessRefused):
        CALLS[verb](provider)
    assert len(service.asked) == 2


@pytest.mark.parametrize("arguments", [{"api_key": KEY}, {"azure_ad_token": "fixed-token"}])
def test_a_refused_key_is_not_sent_twice(service: ScriptedService, arguments: dict[str, Any]) -> None:
    service.will(*[Answer(401, {"error": {"code": "401", "message": "m"}})] * 2)
    with opened(service, **arguments) as provider, pytest.raises(AccessRefused):
        CALLS["get_batch"](provider)
    assert len(service.asked) == 1


def test_a_role_that_is_missing_is_not_a_token_to_renew(service: ScriptedService) -> None:
    service.will(Answer(403, {"error": {"code": "PermissionDenied", "message": "m"}}))
    with opened(service, credential=_Credential()) as provider, pytest.raises(AccessRefused):
        CALLS["get_batch"](provider)
    assert len(service.asked) == 1


def test_a_token_provider_is_asked_for_every_request(service: ScriptedService) -> None:
    tokens = iter(["one", "two"])
    service.will(Answer(200, BATCH), Answer(200, BATCH))
    with opened(service, azure_ad_token_provider=lambda: next(tokens)) as provider:
        CALLS["get_batch"](provider)
        CALLS["get_batch"](provider)
    assert [asked.headers["authorization"] for asked in service.asked] == ["Bearer one", "Bearer two"]


def test_without_a_token_nothing_is_sent(service: ScriptedService) -> None:
    def broken() -> str:
        raise RuntimeError("no sign-in for secret-token-1234567")

    with opened(service, azure_ad_token_provider=broken) as provider, pytest.raises(AccessRefused) as refusal:
        CALLS["create_batch"](provider)
    assert refusal.value.__context__ is None
    assert service.asked == []


# ---------------------------------------------------------------- a user's own client


def test_a_users_client_is_used_with_our_rules(service: ScriptedService) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=service.url,
        azure_deployment="chat",
        api_version="2024-10-21",
        api_key=KEY,
        max_retries=5,
    )
    service.will(
        Answer(500, b"", {"Retry-After": "0.01"}),
        Answer(307, b"", {"Location": f"{service.url}/elsewhere"}),
        Answer(200, BATCH),
    )
    target, credentials = resolve_target("openai", "chat_completions", client=client)
    provider = open_provider(target, credentials)
    for _ in range(2):
        with pytest.raises(FateUnknown):
            provider.create_batch("file-1", {})
    assert provider.create_batch("file-1", {}).id == "batch_1"
    provider.close()
    assert [asked.path for asked in service.asked] == ["/openai/batches"] * 3
    assert all(asked.headers["api-key"] == KEY for asked in service.asked)
    assert service.asked[2].json["endpoint"] == "/chat/completions"
    assert provider.waits_for_file
    assert not client.is_closed()
    client.close()


def test_a_users_client_keeps_its_own_token_provider(service: ScriptedService) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=service.url, api_version="2024-10-21", azure_ad_token_provider=lambda: "theirs"
    )
    service.will(Answer(200, BATCH))
    target, credentials = resolve_target("azure", "chat_completions", client=client)
    provider = open_provider(target, credentials)
    provider.get_batch("batch_1")
    assert service.asked[0].headers["authorization"] == "Bearer theirs"
    client.close()


def test_a_users_clients_own_token_is_masked_too(service: ScriptedService) -> None:
    client = openai.AzureOpenAI(
        azure_endpoint=service.url,
        api_version="2024-10-21",
        azure_ad_token_provider=lambda: "their-own-token",
    )
    fault = {"code": "invalid_request", "message": "their-own-token is for another deployment"}
    service.will(
        Answer(403, {"error": {"code": "403", "message": "their-own-token may not"}}),
        Answer(200, {**BATCH, "status": "failed", "errors": {"data": [fault]}}),
    )
    provider = open_provider(*resolve_target("azure", "chat_completions", client=client))
    with pytest.raises(AccessRefused) as refusal:
        provider.get_batch("batch_1")
    assert refusal.value.message == "HTTP 403: *** may not"
    assert provider.get_batch("batch_1").faults[0].message == "*** is for another deployment"
    client.close()


# ---------------------------------------------------------------- threads, logs


def test_threads_may_share_a_provider(service: ScriptedService) -> None:
    service.will(*[Answer(200, BATCH)] * 40)
    with opened(service) as provider, ThreadPoolExecutor(8) as pool:
        seen = list(pool.map(lambda _: provider.get_batch("batch_1").id, range(40)))
    assert seen == ["batch_1"] * 40
    assert len(service.asked) == 40


def test_logs_at_info_hold_no_key_and_no_prompt(
    service: ScriptedService, caplog: pytest.LogCaptureFixture
) -> None:
    service.will(Answer(200, FILE), Answer(200, BATCH), Answer(401, {"error": {"message": KEY}}))
    with caplog.at_level(logging.INFO), opened(service) as provider:
        provider.upload("a.jsonl", io.BytesIO(b'{"prompt": "hush"}'), 18)
        provider.create_batch("file-1", {"tag": "t"})
        with pytest.raises(AccessRefused):
            provider.get_batch("batch_1")
    assert KEY not in caplog.text
    assert "hush" not in caplog.text
