"""The faces: real HTTP on loopback, and routes inside the process."""

from __future__ import annotations

import asyncio
import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from emulator.calls import request_lines
from langbatch.emulator import EmulatorConfig, RunningServer, routed, running_server

PENDING = {"pending", "validating", "in_progress", "finalizing"}


def _clients(server: RunningServer) -> dict[str, openai.OpenAI]:
    azure = openai.AzureOpenAI(
        azure_endpoint=server.azure_endpoint, api_key="k", api_version="2025-04-01-preview", max_retries=0
    )
    return {
        "azure": azure,
        "azure-v1": openai.OpenAI(base_url=server.azure_v1_base_url, api_key="k", max_retries=0),
        "openai": openai.OpenAI(base_url=server.openai_base_url, api_key="k", max_retries=0),
    }


def _run(client: openai.OpenAI, count: int = 5) -> Any:
    file = client.files.create(file=("job-0-1.jsonl", request_lines(count)), purpose="batch")
    while str(file.status) in PENDING:
        file = client.files.retrieve(file.id)
    batch = client.batches.create(
        input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h", metadata={"a": "b"}
    )
    while batch.status in PENDING:
        batch = client.batches.retrieve(batch.id)
    return batch


@pytest.mark.parametrize("family", ["azure", "azure-v1", "openai"])
def test_sdk_runs_a_batch_over_http(langbatch_emulator: RunningServer, family: str) -> None:
    with _clients(langbatch_emulator)[family] as client:
        batch = _run(client)
        assert batch.status == "completed"
        assert batch.request_counts.completed == 5
        content = client.files.content(batch.output_file_id).read()
        assert content.count(b"\n") == 5
        assert [found.id for found in client.batches.list()] == [batch.id]
        assert batch.input_file_id in [found.id for found in client.files.list()]
        assert client.files.delete(batch.input_file_id).deleted
        with pytest.raises(openai.ConflictError, match="Cannot cancel"):
            client.batches.cancel(batch.id)
    assert langbatch_emulator.emulator.payments().paid == 5


@pytest.fixture
def server() -> Iterator[RunningServer]:
    with running_server(config=EmulatorConfig.instant()) as running:
        yield running


def _raw(server: RunningServer, method: str, path: str) -> bytes:
    """The body of an answer, read to its end without any library's forgiveness."""
    host, port = server.url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    try:
        connection.request(method, path, headers={"Authorization": "Bearer k"})
        return connection.getresponse().read()
    finally:
        connection.close()


def test_dropped_connection_closes_without_a_byte(server: RunningServer) -> None:
    """Item 21."""
    server.emulator.add_faults("list-drop@1")
    with pytest.raises(http.client.RemoteDisconnected):
        _raw(server, "GET", "/v1/batches")
    assert b'"object":"list"' in _raw(server, "GET", "/v1/batches")


def test_reset_connection_is_reset(server: RunningServer) -> None:
    """Item 22."""
    server.emulator.add_faults("list-reset@1")
    with pytest.raises(ConnectionResetError) as caught:
        _raw(server, "GET", "/v1/batches")
    assert not isinstance(caught.value, http.client.RemoteDisconnected)


def test_truncated_download_ends_before_its_length(server: RunningServer) -> None:
    """Item 22."""
    content = request_lines(5000)
    with _clients(server)["openai"] as client:
        file = client.files.create(file=("job.jsonl", content), purpose="batch")
        server.emulator.add_faults("download-truncated=0.5@1", "download-short=0.5@1")
        with pytest.raises(http.client.IncompleteRead) as caught:
            _raw(server, "GET", f"/v1/files/{file.id}/content")
        assert caught.value.partial == content[: len(content) // 2]
        short = client.files.content(file.id)
        assert len(short.content) == int(short.response.headers["content-length"]) == len(content) // 2
        assert client.files.content(file.id).content == content


def test_sdk_retries_a_lost_create_into_a_duplicate_that_payments_show(server: RunningServer) -> None:
    """Item 21."""
    server.emulator.add_faults("create-committed-drop@1")
    with openai.OpenAI(base_url=server.openai_base_url, api_key="k", max_retries=1) as client:
        batch = _run(client)
    assert batch.status == "completed"
    assert server.emulator.report()["counts"]["batches"] == 2
    bill = server.emulator.payments()
    assert (bill.max_paid, bill.paid_twice) == (2, 5)


def test_port_is_free_again_and_the_next_server_takes_it() -> None:
    with running_server() as first:
        port = int(first.url.rsplit(":", 1)[1])
    with running_server(port=port) as second:
        assert second.url == first.url
        assert b'"object":"list"' in _raw(second, "GET", "/v1/batches")


def test_slow_answer_outlasts_a_short_timeout(server: RunningServer) -> None:
    server.emulator.add_faults("list-delay=1@1")
    with openai.OpenAI(base_url=server.openai_base_url, api_key="k", max_retries=0, timeout=0.2) as client:
        with pytest.raises(openai.APITimeoutError):
            client.batches.list()
        assert client.batches.list().data == []


def test_client_that_hangs_up_in_an_upload_leaves_no_file(server: RunningServer) -> None:
    host, port = server.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        head = "POST /v1/files HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer k\r\nContent-Length: 1000000\r\n"
        raw.sendall(f"{head}Content-Type: multipart/form-data; boundary=b\r\n\r\n--b\r\n".encode())
    assert b'"data":[]' in _raw(server, "GET", "/v1/files")
    assert server.emulator.report()["counts"]["uploads"] == 0


def _serve(folder: Path, *more: str) -> subprocess.Popen[str]:
    code = (
        "import sys\n"
        "from langbatch.emulator import EmulatorConfig, serve\n"
        "serve(config=EmulatorConfig.instant(), folder=sys.argv[1], profile=sys.argv[2],\n"
        "      on_ready=lambda url: print(url, flush=True))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), *more], stdout=subprocess.PIPE, text=True, env=os.environ
    )


def _first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(("profile", "suffix"), [("azure", ""), ("azure-v1", ""), ("openai", "/v1")])
def test_serve_tells_its_base_url_and_stops_on_sigterm(tmp_path: Path, profile: str, suffix: str) -> None:
    process = _serve(tmp_path, profile)
    try:
        url = _first_line(process)
        assert url.startswith("http://127.0.0.1:")
        assert url.removeprefix("http://127.0.0.1:").lstrip("0123456789") == suffix
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_killed_emulator_comes_back_as_it_was(tmp_path: Path) -> None:
    process = _serve(tmp_path, "openai")
    try:
        with openai.OpenAI(base_url=_first_line(process), api_key="k", max_retries=0) as client:
            file = client.files.create(file=("job-0-1.jsonl", request_lines(50)), purpose="batch")
            batch = client.batches.create(
                input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h"
            )
            batch = client.batches.retrieve(batch.id)
            assert batch.status == "in_progress"
    finally:
        process.kill()
        process.communicate(timeout=20)
    with running_server(folder=tmp_path) as again, _clients(again)["openai"] as client:
        while batch.status in PENDING:
            batch = client.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert client.files.content(batch.output_file_id or "").content.count(b"\n") == 50
        assert again.emulator.payments().paid == 50


def test_port_in_use_is_an_os_error(tmp_path: Path) -> None:
    from langbatch.emulator import serve

    with running_server() as server, pytest.raises(OSError, match=r"[Aa]ddress"):
        serve(port=int(server.url.rsplit(":", 1)[1]), folder=tmp_path)


def test_memory_stays_flat_over_a_large_batch(tmp_path: Path) -> None:
    """Ten times the bytes must not cost ten times the memory: 40 MB in, well under 40 MB more."""
    tests = str(Path(__file__).parent.parent)
    paths = os.pathsep.join([tests, *(path for path in sys.path if path)])
    done = subprocess.run(
        [sys.executable, "-m", "emulator.large_batch"],
        capture_output=True,
        text=True,
        check=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": paths},
    )
    small, large = (int(kilobytes) for kilobytes in done.stdout.split())
    assert large < 100_000
    assert large - small < 20_000


# ---------------------------------------------------------------- inside the process


def _azure() -> openai.AzureOpenAI:
    return openai.AzureOpenAI(
        azure_endpoint="https://res.openai.azure.com", api_key="k", api_version="2024-10-21", max_retries=0
    )


def test_sdk_is_routed_to_the_emulator_whatever_its_host() -> None:
    with routed() as emulator:
        with _azure() as azure, openai.OpenAI(api_key="k", max_retries=0) as client:
            assert _run(azure).status == "completed"
            batch = _run(client)
            assert client.files.content(batch.output_file_id).content.count(b"\n") == 5
        assert emulator.report()["counts"]["batches"] == 2


def test_plain_httpx_is_routed_too() -> None:
    with routed() as emulator, httpx.Client() as client:
        reply = client.get("https://api.openai.com/v1/batches", headers={"Authorization": "Bearer k"})
        assert reply.json()["data"] == []
        assert emulator.report()["calls"] == {"list": 1}
        emulator.add_faults("list-drop@1", "list-reset@1")
        for problem in (httpx.RemoteProtocolError, httpx.ReadError):
            with pytest.raises(problem):
                client.get("https://api.openai.com/v1/batches", headers={"Authorization": "Bearer k"})


def test_unrouted_host_never_reaches_the_network() -> None:
    with routed(host="res.openai.azure.com") as emulator:
        with _azure() as azure:
            assert azure.batches.list().data == []
        with httpx.Client() as client, pytest.raises(AssertionError):
            client.get("https://api.openai.com/v1/batches")
        assert emulator.report()["calls"] == {"list": 1}


def test_broken_connections_are_the_sdk_s_own_errors() -> None:
    with routed() as emulator, openai.OpenAI(api_key="k", max_retries=0) as client:
        emulator.add_faults("list-drop@1", "list-reset@1")
        for _ in range(2):
            with pytest.raises(openai.APIConnectionError):
                client.batches.list()
        assert client.batches.list().data == []


def test_async_sdk_is_routed() -> None:
    async def listed() -> int:
        async with openai.AsyncOpenAI(api_key="k", max_retries=0) as client:
            await client.files.create(file=("a.jsonl", request_lines(2)), purpose="batch")
            return len((await client.files.list()).data)

    with routed():
        assert asyncio.run(listed()) == 1


def test_truncated_download_breaks_off_inside_the_process() -> None:
    with routed() as emulator, httpx.Client(headers={"Authorization": "Bearer k"}) as client:
        form = {"purpose": "batch"}
        upload = client.post("https://h/v1/files", data=form, files={"file": ("a.jsonl", request_lines(9))})
        emulator.add_faults("download-truncated@1")
        with pytest.raises(httpx.RemoteProtocolError, match="without sending complete message body"):
            client.get(f"https://h/v1/files/{upload.json()['id']}/content")
