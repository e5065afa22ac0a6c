"""The verbs against the emulator: every family of URLs, every fault that concerns one exchange."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from langbatch.config.resolving import resolve_target
from langbatch.emulator import Emulator, EmulatorConfig, routed, running_server
from langbatch.emulator.faults import COMMITTED_EFFECTS
from langbatch.errors import (
    AccessRefused,
    BadDownload,
    FateUnknown,
    ProviderError,
    QuotaFull,
    Refused,
    RemoteNotFound,
    Throttled,
)
from langbatch.providers import open_provider
from langbatch.providers.base import Provider
from langbatch.records import RemoteBatch

FAMILIES = ["2024-10-21", "2025-04-01-preview", "v1", "openai"]


@dataclass
class Stage:
    provider: Provider
    emulator: Emulator

    def upload(self, rows: int = 2, name: str = "lb-1.jsonl", model: str = "m") -> str:
        payload = "".join(
            json.dumps(
                {
                    "custom_id": f"task-{row}",
                    "method": "POST",
                    "url": "/v1/chat/completions",
                    "body": {"model": model, "messages": [{"role": "user", "content": "hi"}]},
                }
            )
            + "\n"
            for row in range(rows)
        ).encode()
        return self.provider.upload(name, io.BytesIO(payload), len(payload)).id

    def ready_file(self, **options: Any) -> str:
        file_id = self.upload(**options)
        for _ in range(20):
            if self.provider.get_file(file_id).status == "processed":
                return file_id
        raise AssertionError("the file never became ready")

    def finished(self, batch_id: str) -> RemoteBatch:
        for _ in range(50):
            batch = self.provider.get_batch(batch_id)
            if batch.status in ("completed", "failed", "cancelled"):
                return batch
        raise AssertionError("the batch never ended")


@contextmanager
def staged(family: str, *faults: str, in_process: bool = False, **settings: Any) -> Iterator[Stage]:
    secret = {"api_key": "test-key"} if "bearer_tokens" not in settings else {}
    arguments = settings.pop("arguments", secret)
    profile = "openai" if family == "openai" else "azure"
    config = EmulatorConfig.instant(profile=profile, faults=faults, **settings)
    with ExitStack() as stack:
        if in_process:
            emulator = stack.enter_context(routed(stack.enter_context(Emulator(config))))
            url = "https://emulator.invalid"
        else:
            server = stack.enter_context(running_server(config=config))
            emulator, url = server.emulator, server.url
        place = (
            {"base_url": f"{url}/v1"}
            if family == "openai"
            else {"azure_endpoint": url, "api_version": family}
        )
        target, credentials = resolve_target(
            profile, "chat_completions", model="m", environ={}, **place, **arguments
        )
        provider = open_provider(target, credentials)
        stack.callback(provider.close)
        yield Stage(provider, emulator)


@pytest.mark.parametrize("in_process", [False, True], ids=["over http", "in process"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_batch_goes_through_every_verb(family: str, in_process: bool) -> None:
    with staged(family, in_process=in_process) as stage:
        provider = stage.provider
        file_id = stage.ready_file()
        assert [file.id for file in provider.list_files().files] == [file_id]
        batch = provider.create_batch(file_id, {"langbatch": "tag-1"})
        assert batch.input_file_id == file_id
        assert batch.metadata == {"langbatch": "tag-1"}
        page = provider.list_batches()
        assert [other.id for other in page.batches] == [batch.id]
        assert page.has_more is False
        assert page.server_time is not None
        ended = stage.finished(batch.id)
        assert ended.status == "completed"
        assert ended.counts is not None
        assert (ended.counts.total, ended.counts.completed) == (2, 2)
        assert ended.output_file_id is not None
        sink = io.BytesIO()
        size = provider.download(ended.output_file_id, sink)
        rows = [json.loads(line) for line in sink.getvalue().split(b"\n") if line]
        assert sorted(row["custom_id"] for row in rows) == ["task-0", "task-1"]
        assert size == len(sink.getvalue())
        if ended.error_file_id is not None:
            assert provider.download(ended.error_file_id, io.BytesIO()) == 0
        provider.delete_file(file_id)
        with pytest.raises(RemoteNotFound) as gone:
            provider.get_file(file_id)
        assert gone.value.code != "404"
        assert stage.emulator.report()["counts"]["batches"] == 1


@pytest.mark.parametrize("family", FAMILIES)
def test_a_running_batch_can_be_cancelled(family: str) -> None:
    with staged(family) as stage:
        batch = stage.provider.create_batch(stage.ready_file(), {})
        assert stage.provider.cancel_batch(batch.id).status in ("cancelling", "cancelled")
        assert stage.finished(batch.id).status == "cancelled"


@pytest.mark.parametrize("family", FAMILIES)
def test_pages_follow_one_another(family: str) -> None:
    with staged(family) as stage:
        file_id = stage.ready_file(rows=1)
        made = [stage.provider.create_batch(file_id, {}).id for _ in range(3)]
        newest = stage.provider.list_batches().batches[0].id
        rest = stage.provider.list_batches(after=newest)
        assert sorted([newest, *(batch.id for batch in rest.batches)]) == sorted(made)


COMMITTED = [
    f"{verb}-committed-{effect}" for verb in ("upload", "create") for effect in COMMITTED_EFFECTS
] + ["upload-committed-null-id", "create-committed-null-id", "create-committed-other-file"]


@pytest.mark.parametrize("fault", COMMITTED)
def test_a_spoiled_reply_leaves_the_fate_open_and_one_object_behind(fault: str) -> None:
    with staged("v1") as stage:
        file_id = stage.ready_file()
        stage.emulator.add_faults(fault)
        with pytest.raises(FateUnknown):
            CALLS[fault.partition("-")[0]](stage, file_id, "")
        counts = stage.emulator.report()["counts"]
        assert (counts["uploads"], counts["batches"]) == ((2, 0) if fault.startswith("upload") else (1, 1))


CALLS: dict[str, Callable[[Stage, str, str], object]] = {
    "upload": lambda stage, file_id, batch_id: stage.upload(name="lb-2.jsonl"),
    "get-file": lambda stage, file_id, batch_id: stage.provider.get_file(file_id),
    "list-files": lambda stage, file_id, batch_id: stage.provider.list_files(),
    "delete-file": lambda stage, file_id, batch_id: stage.provider.delete_file(file_id),
    "download": lambda stage, file_id, batch_id: stage.provider.download(file_id, io.BytesIO()),
    "create": lambda stage, file_id, batch_id: stage.provider.create_batch(file_id, {}),
    "poll": lambda stage, file_id, batch_id: stage.provider.get_batch(batch_id),
    "list": lambda stage, file_id, batch_id: stage.provider.list_batches(),
    "cancel": lambda stage, file_id, batch_id: stage.provider.cancel_batch(batch_id),
}
EFFECTS: dict[str, type[ProviderError]] = {
    "drop": FateUnknown,
    "408": FateUnknown,
    "500": FateUnknown,
    "503-html": FateUnknown,
    "redirect": FateUnknown,
    "404": RemoteNotFound,
    "403": AccessRefused,
    "401-entra": AccessRefused,
    "401-key": AccessRefused,
    "401-role": AccessRefused,
    "429": Throttled,
    "429-long": Throttled,
    "429-garbage": Throttled,
}


@pytest.mark.parametrize("family", ["2025-04-01-preview", "openai"])
def test_every_fault_of_every_verb_is_told_for_what_it_is(family: str) -> None:
    with staged(family, in_process=True) as stage:
        file_id = stage.ready_file()
        batch_id = stage.provider.create_batch(file_id, {}).id
        for verb, call in CALLS.items():
            for effect, error_family in EFFECTS.items():
                before = sum(stage.emulator.report()["calls"].values())
                stage.emulator.add_faults(f"{verb}-{effect}")
                with pytest.raises(error_family) as trouble:
                    call(stage, file_id, batch_id)
                stage.emulator.remove_faults()
                assert type(trouble.value) is error_family, (verb, effect)
                assert sum(stage.emulator.report()["calls"].values()) - before <= 1, (verb, effect)


@pytest.mark.parametrize(
    ("fault", "seconds"),
    [
        ("poll-429-ms=1500", 1.5),
        ("poll-429-short=3", 3.0),
        ("poll-429-long=3600", 3600.0),
        ("poll-429-negative", None),
        ("poll-429-garbage", None),
        ("poll-429", None),
    ],
)
def test_the_services_advice_arrives(fault: str, seconds: float | None) -> None:
    with staged("2024-10-21", in_process=True) as stage:
        batch_id = stage.provider.create_batch(stage.ready_file(), {}).id
        stage.emulator.add_faults(fault)
        with pytest.raises(Throttled) as trouble:
            stage.provider.get_batch(batch_id)
        assert trouble.value.retry_after_seconds == seconds


@pytest.mark.parametrize("fault", ["download-truncated", "download-html", "download-truncated=0.01"])
def test_a_spoiled_download_is_bad(fault: str) -> None:
    with staged("v1") as stage:
        batch = stage.finished(stage.provider.create_batch(stage.ready_file(rows=50), {}).id)
        stage.emulator.add_faults(fault)
        with pytest.raises(BadDownload):
            stage.provider.download(batch.output_file_id or "", io.BytesIO())


@pytest.mark.parametrize("family", FAMILIES)
def test_a_full_token_quota_is_told_as_such(family: str) -> None:
    with staged(family, "create-token-limit") as stage:
        file_id = stage.ready_file()
        with pytest.raises(QuotaFull):
            stage.provider.create_batch(file_id, {})


def test_a_full_file_store_is_told_as_such() -> None:
    with staged("2024-10-21", "upload-quota") as stage, pytest.raises(QuotaFull):
        stage.upload()


@pytest.mark.parametrize("family", ["2025-04-01-preview", "v1", "openai"])
def test_files_expire_by_the_services_own_rule(family: str) -> None:
    """Without an expiry the emulator's limit of 0 files would refuse the upload."""
    with staged(family, files_limit=0 if family != "openai" else 500) as stage:
        stage.upload()
        assert getattr(stage.provider, "expiry_honoured", None) is True


def test_a_higher_floor_for_expiry_does_not_stop_the_upload() -> None:
    with staged("v1", azure_expiry_floor_seconds=2_000_000) as stage:
        stage.upload()
        assert stage.emulator.report()["counts"]["uploads"] == 1


def test_a_list_of_either_style_is_read() -> None:
    with staged("v1", "list-as-value", "list-no-has-more") as stage:
        batch = stage.provider.create_batch(stage.ready_file(), {})
        assert [other.id for other in stage.provider.list_batches().batches] == [batch.id]
        stage.emulator.remove_faults("list-as-value")
        page = stage.provider.list_batches()
        assert ([other.id for other in page.batches], page.has_more) == ([batch.id], None)


def test_odd_batch_objects_are_read() -> None:
    odd = ("batch-metadata-null", "batch-endpoint-null", "batch-ids-empty", "batch-iso-times")
    with staged("2024-07-01-preview", *odd) as stage:
        batch = stage.provider.create_batch(stage.ready_file(), {"a": "b"})
        seen = stage.provider.get_batch(batch.id)
        assert (seen.metadata, seen.endpoint, seen.output_file_id) == (None, None, None)
        assert isinstance(seen.created_at, float)


@pytest.mark.parametrize("family", ["2024-10-21", "v1"])
def test_a_token_that_expires_in_mid_poll_is_renewed(family: str) -> None:
    class Credential:
        count = 0

        def get_token(self, *scopes: str) -> Any:
            self.count += 1

            class Token:
                token = f"token-{self.count}"
                expires_on = 4_000_000_000

            return Token()

    credential = Credential()
    settings: dict[str, Any] = {"token_seconds": 100.0, "arguments": {"credential": credential}}
    with staged(family, **settings) as stage:
        batch = stage.provider.create_batch(stage.ready_file(), {})
        stage.emulator.advance(200)
        assert stage.provider.get_batch(batch.id).id == batch.id
    assert credential.count == 2


@pytest.mark.parametrize("family", FAMILIES)
def test_a_wrong_key_is_refused_access(family: str) -> None:
    with staged(family, api_key="the-right-key") as stage, pytest.raises(AccessRefused):
        stage.upload()


@pytest.mark.parametrize("family", ["2024-10-21", "v1", "openai"])
def test_the_right_key_is_let_in(family: str) -> None:
    with staged(family, api_key="the-right-key", arguments={"api_key": "the-right-key"}) as stage:
        stage.upload()


def test_a_batch_on_a_pending_file_is_refused_for_good() -> None:
    with staged("2024-10-21", "file-stays-pending") as stage:
        file_id = stage.upload()
        with pytest.raises(Refused):
            stage.provider.create_batch(file_id, {})


def test_a_users_client_runs_a_batch_on_the_emulator() -> None:
    with running_server() as server:
        client = openai.AzureOpenAI(
            azure_endpoint=server.azure_endpoint,
            azure_deployment="chat",
            api_version="2024-10-21",
            api_key="k",
        )
        target, credentials = resolve_target("openai", "chat_completions", environ={}, client=client)
        stage = Stage(open_provider(target, credentials), server.emulator)
        batch = stage.provider.create_batch(stage.ready_file(), {})
        assert stage.finished(batch.id).status == "completed"
        client.close()
