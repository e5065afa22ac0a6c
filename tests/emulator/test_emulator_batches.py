from __future__ import annotations

import pytest

from emulator.calls import Caller, Start, error_of, request_line, request_lines
from langbatch.emulator.clock import ManualClock
from langbatch.emulator.config import Timing

CHAT = "/v1/chat/completions"
HOURS = 3600
#: 100 rows a thousand seconds: one row every ten.
SLOW = Timing("seconds", file_pending=0, validating=100, running=1000, finalizing=50, cancelling=300)


# ---------------------------------------------------------------- create


def test_create_on_a_pending_file_is_refused(start: Start) -> None:
    """Item 2."""
    caller = start("azure", pending_file_message="not yet")
    file_id = caller.upload(request_lines(1)).json()["id"]
    reply = caller.create(file_id)
    assert (reply.status, error_of(reply)["message"]) == (400, "not yet")
    assert caller.emulator.report()["counts"]["batches"] == 0


def test_create_on_a_pending_file_can_fail_the_batch_instead(start: Start) -> None:
    """Item 2."""
    caller = start("azure", pending_file="fail", pending_file_message="not yet")
    reply = caller.create(caller.upload(request_lines(1)).json()["id"])
    assert reply.status == 201
    batch = caller.finish(reply.json()["id"])
    assert batch["status"] == "failed"
    assert batch["errors"]["data"][0]["message"] == "not yet"


@pytest.mark.parametrize(
    ("family", "version", "status"),
    [
        ("azure", "2024-10-21", 200),
        ("azure", "2025-04-01-preview", 201),
        ("azure-v1", "", 201),
        ("openai", "", 200),
    ],
)
def test_create_status_follows_the_version(start: Start, family: str, version: str, status: int) -> None:
    """Item 3."""
    caller = start(family, version=version)
    assert caller.create(caller.ready_file(request_lines(1))).status == status


@pytest.mark.parametrize(("family", "echo"), [("azure", "/chat/completions"), ("openai", CHAT)])
def test_azure_rewrites_the_endpoint_it_echoes(start: Start, family: str, echo: str) -> None:
    """Item 7."""
    caller = start(family)
    assert caller.create(caller.ready_file(request_lines(1))).json()["endpoint"] == echo


def test_endpoint_echo_can_be_null(start: Start) -> None:
    """Item 7."""
    caller = start("azure", faults=("batch-endpoint-null@1",))
    reply = caller.create(caller.ready_file(request_lines(1))).json()
    assert reply["endpoint"] is None
    assert caller.poll(reply["id"])["endpoint"] == "/chat/completions"


@pytest.mark.parametrize(("family", "missing"), [("azure", ""), ("azure-v1", None), ("openai", None)])
def test_missing_ids_are_empty_on_dated_azure_and_null_elsewhere(
    start: Start, family: str, missing: str | None
) -> None:
    """Item 8."""
    caller = start(family)
    batch = caller.create(caller.ready_file(request_lines(1))).json()
    assert batch["output_file_id"] == missing
    assert batch["error_file_id"] == missing


@pytest.mark.parametrize("absent", ["input_file_id", "endpoint", "completion_window"])
def test_openai_names_the_missing_parameter(start: Start, absent: str) -> None:
    caller = start("openai")
    asked = {"input_file_id": "file-x", "endpoint": CHAT, "completion_window": "24h"}
    del asked[absent]
    reply = caller.call("POST", "/batches", value=asked)
    assert (reply.status, error_of(reply)["code"], error_of(reply)["param"]) == (
        400,
        "missing_required_parameter",
        absent,
    )


def test_metadata_must_be_few_short_texts(start: Start) -> None:
    caller = start("openai")
    file_id = caller.ready_file(request_lines(1))
    wrong = error_of(caller.create(file_id, metadata={"n": 1}))
    assert (wrong["code"], wrong["param"]) == ("invalid_type", "metadata.n")
    assert caller.create(file_id, metadata={f"k{n}": "v" for n in range(17)}).status == 400
    assert caller.create(file_id, metadata={"k" * 65: "v"}).status == 400
    assert caller.create(file_id, metadata={"k": "v" * 513}).status == 400
    assert caller.create(file_id, metadata={"k" * 64: "v" * 512}).json()["metadata"] == {"k" * 64: "v" * 512}


def test_another_window_is_refused_by_openai_and_fails_the_job_on_azure(start: Start) -> None:
    openai = start("openai")
    assert openai.create(openai.ready_file(request_lines(1)), completion_window="1h").status == 400
    azure = start("azure")
    assert azure.run(request_lines(1), completion_window="1h")["status"] == "failed"


def test_unsupported_endpoint_is_refused(start: Start) -> None:
    caller = start("openai")
    assert caller.create(caller.ready_file(request_lines(1)), endpoint="/chat/completions").status == 400


@pytest.mark.parametrize(("family", "status"), [("azure", 404), ("azure-v1", 404), ("openai", 400)])
def test_deleted_input_fences_later_creates(start: Start, family: str, status: int) -> None:
    caller = start(family)
    file_id = caller.ready_file(request_lines(1))
    caller.call("DELETE", f"/files/{file_id}")
    assert caller.create(file_id).status == status
    assert caller.emulator.report()["counts"]["batches"] == 0


def test_missing_input_can_fail_the_batch_instead(start: Start) -> None:
    caller = start("azure", missing_file="fail")
    assert caller.finish(caller.create("file-none").json()["id"])["status"] == "failed"


def test_input_deleted_while_the_batch_runs_is_harmless(start: Start) -> None:
    caller = start("azure")
    batch_id = caller.begin(request_lines(4))
    caller.call("DELETE", f"/files/{caller.poll(batch_id)['input_file_id']}")
    batch = caller.finish(batch_id)
    assert batch["status"] == "completed"
    assert len(caller.rows(batch["output_file_id"])) == 4


def test_input_deleted_while_the_batch_runs_can_fail_it(start: Start) -> None:
    caller = start("azure", deleted_input="fail")
    batch_id = caller.begin(request_lines(4))
    caller.call("DELETE", f"/files/{caller.poll(batch_id)['input_file_id']}")
    batch = caller.finish(batch_id)
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "input_modified")


# ---------------------------------------------------------------- the course


def test_counts_stay_zero_in_validation_then_rise_to_the_total(start: Start) -> None:
    """Item 9."""
    clock = ManualClock()
    caller = start("openai", clock=clock, timing=SLOW)
    batch_id = caller.begin(request_lines(100))
    seen = []
    for _ in range(12):
        batch = caller.poll(batch_id)
        seen.append((batch["status"], *batch["request_counts"].values()))
        clock.advance(99)
    assert seen[0] == seen[1] == ("validating", 0, 0, 0)
    done = [completed for status, _, completed, _ in seen if status == "in_progress"]
    assert all(total == 100 for status, total, _, _ in seen if status != "validating")
    assert done == sorted(set(done))
    assert len(done) > 5
    assert seen[-1] == ("in_progress", 100, 98, 0)


def test_stages_come_in_order_one_for_each_look(start: Start) -> None:
    caller = start("azure")
    batch_id = caller.begin(request_lines(2))
    statuses = [caller.poll(batch_id)["status"] for _ in range(4)]
    assert statuses == ["in_progress", "in_progress", "finalizing", "completed"]


def test_demo_timing_needs_time_and_not_looks(start: Start) -> None:
    clock = ManualClock()
    caller = start("openai", clock=clock, timing=SLOW)
    batch_id = caller.begin(request_lines(10))
    for _ in range(10):
        assert caller.poll(batch_id)["status"] == "validating"
    clock.advance(1149)
    assert caller.poll(batch_id)["status"] == "finalizing"
    clock.advance(1)
    batch = caller.poll(batch_id)
    assert batch["status"] == "completed"
    assert batch["completed_at"] == batch["created_at"] + 1150
    assert batch["in_progress_at"] == batch["created_at"] + 100
    assert batch["expires_at"] == batch["created_at"] + 24 * HOURS


# ---------------------------------------------------------------- quota


def test_token_limit_is_a_400_on_create_and_is_released_at_the_end(start: Start) -> None:
    """Item 10."""
    content = request_lines(4)
    caller = start("azure", enqueued_token_limit=len(content) // 4)
    first, second = caller.ready_file(content), caller.ready_file(content)
    batch_id = caller.create(first).json()["id"]
    reply = caller.create(second)
    assert (reply.status, error_of(reply)["code"]) == (400, "token_limit_exceeded")
    caller.finish(batch_id)
    assert caller.create(second).status == 201


def test_token_limit_can_fail_validation_instead(start: Start) -> None:
    """Item 10."""
    content = request_lines(4)
    caller = start("azure", enqueued_token_limit=len(content) // 4, token_limit_at="validation")
    caller.begin(content)
    batch = caller.run(content)
    fault = batch["errors"]["data"][0]
    assert (batch["status"], fault["code"], fault["line"]) == ("failed", "token_limit_exceeded", None)
    assert "configured limit" in fault["message"]


def test_token_limit_is_released_by_time_without_a_look(start: Start) -> None:
    """Item 10."""
    clock = ManualClock()
    content = request_lines(4)
    caller = start("azure", clock=clock, timing=SLOW, enqueued_token_limit=len(content) // 4)
    caller.begin(content)
    second = caller.ready_file(content)
    assert caller.create(second).status == 400
    clock.advance(2000)
    assert caller.create(second).status == 201


def test_token_limit_holds_per_deployment(start: Start) -> None:
    """Item 10."""
    content = request_lines(4)
    caller = start("azure", enqueued_token_limits={"gpt": len(content) // 4})
    caller.begin(content)
    assert caller.create(caller.ready_file(request_lines(4, model="oth"))).status == 201
    assert caller.create(caller.ready_file(content)).status == 400


# ---------------------------------------------------------------- cancel, expiry


def _half_way(start: Start, family: str, **settings: object) -> tuple[Caller, ManualClock, str]:
    """A batch of 100 rows of which 50 were run."""
    clock = ManualClock()
    caller = start(family, clock=clock, timing=SLOW, **settings)
    content = b"".join(
        request_line(f"t-{n}" + (" emulator-fail-400" if n % 10 == 0 else "")) for n in range(100)
    )
    batch_id = caller.begin(content)
    clock.advance(600)
    return caller, clock, batch_id


def test_cancel_takes_its_time_and_leaves_partial_rows(start: Start) -> None:
    """Item 16."""
    caller, clock, batch_id = _half_way(start, "openai")
    assert caller.call("POST", f"/batches/{batch_id}/cancel").json()["status"] == "cancelling"
    clock.advance(299)
    assert caller.poll(batch_id)["status"] == "cancelling"
    clock.advance(1)
    batch = caller.poll(batch_id)
    assert batch["status"] == "cancelled"
    counts = batch["request_counts"]
    assert counts["total"] == 100
    assert counts["completed"] + counts["failed"] == 50
    succeeded, failed = caller.rows(batch["output_file_id"]), caller.rows(batch["error_file_id"])
    assert (len(succeeded), len(failed)) == (counts["completed"], counts["failed"])
    assert failed
    assert len({row["custom_id"] for row in succeeded + failed}) == 50


def test_rows_not_run_can_be_listed_as_cancelled(start: Start) -> None:
    """Item 16."""
    caller, clock, batch_id = _half_way(start, "openai", cancelled_rows="listed")
    caller.call("POST", f"/batches/{batch_id}/cancel")
    clock.advance(300)
    rows = caller.rows(caller.poll(batch_id)["error_file_id"])
    codes = [row["error"]["code"] for row in rows if row["error"]]
    assert codes == ["batch_cancelled"] * 50


def test_batch_cancelled_in_validation_runs_nothing(start: Start) -> None:
    """Item 16."""
    caller = start("azure")
    batch_id = caller.begin(request_lines(3))
    assert caller.call("POST", f"/batches/{batch_id}/cancel").json()["status"] == "cancelling"
    batch = caller.finish(batch_id)
    assert (batch["status"], batch["output_file_id"]) == ("cancelled", "")
    assert caller.emulator.payments().executed == 0


@pytest.mark.parametrize("family", ["azure", "azure-v1", "openai"])
def test_cancel_of_a_completed_batch_is_409(start: Start, family: str) -> None:
    """Item 17."""
    caller = start(family)
    batch = caller.run(request_lines(1))
    reply = caller.call("POST", f"/batches/{batch['id']}/cancel")
    assert reply.status == 409
    assert error_of(reply)["message"] == "Cannot cancel a batch with status 'completed'."


def test_cancel_of_a_cancelled_batch_is_200(start: Start) -> None:
    """Item 17."""
    caller = start("openai")
    batch_id = caller.begin(request_lines(1))
    caller.call("POST", f"/batches/{batch_id}/cancel")
    caller.finish(batch_id)
    reply = caller.call("POST", f"/batches/{batch_id}/cancel")
    assert (reply.status, reply.json()["status"]) == (200, "cancelled")
    assert caller.emulator.report()["counts"]["cancels"] == 1


LONG = Timing("seconds", file_pending=0, validating=100, running=40 * HOURS, finalizing=50, cancelling=300)


def test_azure_goes_on_past_expires_at(start: Start) -> None:
    """Item 18."""
    clock = ManualClock()
    caller = start("azure", clock=clock, timing=LONG)
    batch_id = caller.begin(request_lines(10))
    clock.advance(25 * HOURS)
    batch = caller.poll(batch_id)
    assert batch["status"] == "in_progress"
    assert batch["expires_at"] < clock.now()
    clock.advance(16 * HOURS)
    assert caller.poll(batch_id)["request_counts"]["completed"] == 10


def test_openai_expires_and_lists_the_rest_as_batch_expired(start: Start) -> None:
    """Item 18."""
    clock = ManualClock()
    caller = start("openai", clock=clock, timing=LONG)
    batch_id = caller.begin(request_lines(10))
    clock.advance(24 * HOURS)
    batch = caller.poll(batch_id)
    assert batch["status"] == "expired"
    assert batch["expired_at"] == batch["expires_at"]
    done, expired = caller.rows(batch["output_file_id"]), caller.rows(batch["error_file_id"])
    assert len(done) == batch["request_counts"]["completed"] == 5
    assert batch["request_counts"] == {"total": 10, "completed": 5, "failed": 0}
    assert [(row["response"], row["error"]["code"]) for row in expired] == [(None, "batch_expired")] * 5
    assert {row["custom_id"] for row in done + expired} == {f"t-{n}" for n in range(10)}
    assert caller.emulator.payments().paid == 5


def test_batch_can_be_told_to_expire_after_some_rows(start: Start) -> None:
    caller = start("azure", faults=("batch-expire=3",))
    batch = caller.run(request_lines(8))
    assert batch["status"] == "expired"
    assert (len(caller.rows(batch["output_file_id"])), len(caller.rows(batch["error_file_id"]))) == (3, 5)


@pytest.mark.parametrize(
    ("outcome", "status"),
    [("all_fail", "completed"), ("expire_half", "expired"), ("cancel_half", "cancelled"), ("fail", "failed")],
)
def test_every_batch_can_be_given_one_outcome(start: Start, outcome: str, status: str) -> None:
    assert start("azure", outcome=outcome).run(request_lines(4))["status"] == status


# ---------------------------------------------------------------- lists


def test_batch_list_pages_newest_first_with_has_more(start: Start) -> None:
    """Item 23."""
    caller = start("openai")
    file_id = caller.ready_file(request_lines(1))
    ids = [caller.create(file_id).json()["id"] for _ in range(25)]
    first = caller.call("GET", "/batches").json()
    assert (len(first["data"]), first["has_more"], first["first_id"]) == (20, True, ids[-1])
    second = caller.call("GET", "/batches", query={"after": first["last_id"]}).json()
    assert [batch["id"] for batch in second["data"]] == ids[4::-1]
    assert second["has_more"] is False


@pytest.mark.parametrize("limit", ["0", "101", "many"])
def test_batch_list_limit_is_1_to_100(start: Start, limit: str) -> None:
    """Item 23."""
    assert start("openai").call("GET", "/batches", query={"limit": limit}).status == 400


def test_batch_list_filters_and_sorts_as_the_azure_preview_does(start: Start) -> None:
    """Item 23."""
    clock = ManualClock(1_800_000_000)
    caller = start("azure", clock=clock)
    done = caller.run(request_lines(1))["id"]
    clock.advance(10)
    waiting = caller.begin(request_lines(1))

    def ids(**query: str) -> list[str]:
        renamed = {f"${key}": value for key, value in query.items()}
        return [batch["id"] for batch in caller.call("GET", "/batches", query=renamed).json()["data"]]

    assert ids(filter="status eq 'Completed'") == [done]
    assert ids(filter="created_at gt 1800000005") == [waiting]
    assert ids(filter="created_at gt 1800000005 and status eq 'Completed'") == []
    assert ids(orderby="created_at asc") == [done, waiting]


def test_unknown_batch_is_404(start: Start) -> None:
    for family in ("azure", "azure-v1", "openai"):
        assert start(family).call("GET", "/batches/batch_x").status == 404


# ---------------------------------------------------------------- blobs and old previews


def _blob_batch(caller: Caller, content: bytes) -> str:
    caller.emulator.put_blob("https://acct.blob.example/in/input.jsonl", content)
    asked = {
        "input_blob": "https://acct.blob.example/in/input.jsonl",
        "output_folder": {"url": "https://acct.blob.example/out"},
        "endpoint": "/chat/completions",
        "completion_window": "24h",
        "metadata": {"ignored": "yes"},
    }
    return str(caller.call("POST", "/batches", value=asked).json()["id"])


def test_blob_mode_reports_both_paths_and_writes_no_empty_error_blob(start: Start) -> None:
    """Item 25."""
    caller = start("azure")
    batch_id = _blob_batch(caller, request_lines(3))
    assert caller.poll(batch_id)["output_blob"] == ""
    batch = caller.finish(batch_id)
    assert batch["input_file_id"] is None
    assert batch["metadata"] is None
    assert batch["output_blob"].startswith("https://acct.blob.example/out/")
    assert batch["output_blob"].endswith("/results.jsonl")
    assert batch["error_blob"].endswith("/errors.jsonl")
    written = caller.emulator.blob(batch["output_blob"])
    assert written is not None
    assert written.count(b"\n") == 3
    assert caller.emulator.blob(batch["error_blob"]) is None


def test_blob_changed_while_running_fails_the_batch(start: Start) -> None:
    """Item 25."""
    caller = start("azure")
    batch_id = _blob_batch(caller, request_lines(3))
    caller.poll(batch_id)
    caller.emulator.put_blob("https://acct.blob.example/in/input.jsonl", request_lines(4))
    batch = caller.finish(batch_id)
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "input_modified")


def test_unreadable_blob_fails_the_batch(start: Start) -> None:
    """Item 25."""
    caller = start("azure")
    asked = {"input_blob": "https://a/none", "endpoint": "/chat/completions", "completion_window": "24h"}
    batch = caller.finish(caller.call("POST", "/batches", value=asked).json()["id"])
    assert batch["errors"]["data"][0]["code"] == "input_no_permissions"


def test_blob_storage_answers_over_http(start: Start) -> None:
    """Item 25."""
    caller = start("azure")
    assert caller.raw("PUT", "/_blobs/in/a.jsonl", body=(b"ab", b"cd")).status == 201
    assert caller.raw("GET", "/_blobs/in/a.jsonl").read() == b"abcd"
    assert caller.emulator.blob("https://any.host/in/a.jsonl") == b"abcd"


def test_old_previews_write_iso_times_and_capital_statuses(start: Start) -> None:
    """Item 25."""
    caller = start("azure", version="2024-07-01-preview", clock=ManualClock(1_800_000_000))
    batch = caller.create(caller.ready_file(request_lines(1))).json()
    assert batch["status"] == "Validating"
    assert batch["created_at"] == "2027-01-15T08:00:00.0000000Z"


def test_legacy_oddities_can_be_had_on_any_version(start: Start) -> None:
    """Item 25."""
    caller = start("azure-v1", faults=("batch-iso-times@1", "batch-capital-status@1"))
    batch = caller.create(caller.ready_file(request_lines(1))).json()
    assert batch["status"] == "Validating"
    assert isinstance(batch["created_at"], str)
    assert caller.poll(batch["id"])["status"] == "in_progress"


def test_blob_fields_appear_with_2025_04_only(start: Start) -> None:
    for version, there in (("2024-10-21", False), ("2025-04-01-preview", True)):
        caller = start("azure", version=version)
        assert ("output_blob" in caller.create(caller.ready_file(request_lines(1))).json()) is there


def test_usage_is_the_sum_over_the_rows_on_openai(start: Start) -> None:
    caller = start("openai")
    batch = caller.run(request_lines(5))
    usages = [row["response"]["body"]["usage"] for row in caller.rows(batch["output_file_id"])]
    assert batch["usage"]["input_tokens"] == sum(usage["prompt_tokens"] for usage in usages)
    assert batch["usage"]["output_tokens"] == sum(usage["completion_tokens"] for usage in usages)
    assert batch["model"] == "gpt"
