from __future__ import annotations

import pytest

from emulator.calls import BOUNDARY, Caller, Start, error_of, form_bytes, request_line, request_lines
from langbatch.emulator.clock import ManualClock
from langbatch.emulator.config import DEMO
from langbatch.emulator.wire import Response

DAY = 86_400


def test_new_azure_file_is_pending_without_bytes_and_processed_after_a_get(start: Start) -> None:
    """Item 1."""
    caller = start("azure")
    content = request_lines(3)
    new = caller.upload(content).json()
    assert (new["status"], new["bytes"], new["purpose"]) == ("pending", None, "batch")
    assert new["id"].startswith("file-")
    assert len(new["id"]) == len("file-") + 32
    later = caller.call("GET", f"/files/{new['id']}").json()
    assert (later["status"], later["bytes"]) == ("processed", len(content))


def test_azure_file_is_processed_after_its_pending_seconds(start: Start) -> None:
    """Item 1."""
    clock = ManualClock()
    caller = start("azure-v1", clock=clock, timing=DEMO)
    file_id = caller.upload(request_lines(1)).json()["id"]
    assert caller.call("GET", f"/files/{file_id}").json()["status"] == "pending"
    clock.advance(1)
    assert caller.call("GET", f"/files/{file_id}").json()["status"] == "processed"


def test_file_can_end_in_error(start: Start) -> None:
    """Item 1."""
    caller = start("azure", faults=("file-error",))
    file_id = caller.upload(request_lines(1)).json()["id"]
    file = caller.call("GET", f"/files/{file_id}").json()
    assert file["status"] == "error"
    assert file["status_details"]


def test_openai_file_is_processed_at_once(start: Start) -> None:
    """Item 1."""
    content = request_lines(2)
    new = start("openai").upload(content).json()
    assert (new["status"], new["bytes"]) == ("processed", len(content))


@pytest.mark.parametrize(
    ("family", "version", "status"),
    [
        ("azure", "2024-10-21", 201),
        ("azure", "2025-04-01-preview", 201),
        ("azure-v1", "", 200),
        ("openai", "", 200),
    ],
)
def test_upload_status_follows_the_family(start: Start, family: str, version: str, status: int) -> None:
    """Item 3."""
    reply = start(family, version=version).upload(request_lines(1))
    assert reply.status == status
    assert (reply.header("location") is not None) == (status == 201)
    if status == 201:
        assert (
            reply.header("location")
            == f"http://emulator/openai/files/{reply.json()['id']}?api-version={version}"
        )


@pytest.mark.parametrize("path", ["/openai/deployments/gpt/files", "/openai/deployments/gpt/batches"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_deployment_paths_serve_neither_files_nor_batches(start: Start, path: str, method: str) -> None:
    """Item 4."""
    caller = start("azure")
    reply = caller.raw(
        method, path, query={"api-version": "2024-10-21"}, headers={"api-key": "k"}, body=(b"{}",)
    )
    assert reply.status == 404
    assert reply.json() == {"error": {"code": "404", "message": "Resource not found"}}


def test_one_resource_answers_under_every_url_family(start: Start) -> None:
    """Item 4."""
    caller = start("azure")
    file_id = caller.ready_file(request_lines(1))
    for family in ("azure", "azure-v1", "openai"):
        assert caller.at(family).call("GET", f"/files/{file_id}").json()["id"] == file_id
    bare = caller.raw(
        "GET", f"/files/{file_id}", query={"api-version": "2024-10-21"}, headers={"api-key": "k"}
    )
    assert bare.json()["id"] == file_id


@pytest.mark.parametrize("version", ["", "latest", "2023-05-15"])
def test_wrong_api_version_is_the_same_404_as_a_wrong_path(start: Start, version: str) -> None:
    caller = start("azure")
    reply = caller.raw("GET", "/openai/batches", query={"api-version": version}, headers={"api-key": "k"})
    assert reply.status == 404
    assert error_of(reply)["code"] == "404"


def test_upload_under_a_version_before_batch_says_the_purpose_is_invalid(start: Start) -> None:
    reply = start("azure", version="2024-05-01-preview").upload(request_lines(1))
    assert (reply.status, error_of(reply)["code"]) == (400, "invalidPayload")
    assert error_of(reply)["message"] == "Invalid value for purpose."


@pytest.mark.parametrize("names", ["expires_after[{}]", "expires_after.{}", "{}"])
def test_expiry_is_accepted_in_all_three_spellings(start: Start, names: str) -> None:
    """Item 5."""
    clock = ManualClock(1_800_000_000)
    caller = start("azure", clock=clock)
    fields = {names.format("anchor"): "created_at", names.format("seconds"): str(14 * DAY)}
    assert caller.upload(request_lines(1), fields=fields).json()["expires_at"] == 1_800_000_000 + 14 * DAY


@pytest.mark.parametrize(
    ("family", "seconds", "status"),
    [
        ("azure", 14 * DAY - 1, 400),
        ("azure-v1", 3600, 400),
        ("azure-v1", 30 * DAY, 200),
        ("azure-v1", 30 * DAY + 1, 400),
        ("openai", 3600, 200),
        ("openai", 3599, 400),
    ],
)
def test_expiry_out_of_range_is_refused(start: Start, family: str, seconds: int, status: int) -> None:
    """Item 5."""
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(seconds)}
    assert start(family).upload(request_lines(1), fields=fields).status == status


def test_expiry_with_another_anchor_is_refused(start: Start) -> None:
    """Item 5."""
    fields = {"expires_after[anchor]": "last_used_at", "expires_after[seconds]": str(20 * DAY)}
    assert start("azure").upload(request_lines(1), fields=fields).status == 400


def test_expiry_is_ignored_silently_before_2025_03(start: Start) -> None:
    """Item 5."""
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "60"}
    reply = start("azure", version="2024-10-21").upload(request_lines(1), fields=fields)
    assert reply.status == 201
    assert "expires_at" not in reply.json()


def test_expired_file_is_gone(start: Start) -> None:
    clock = ManualClock()
    caller = start("openai", clock=clock)
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": "3600"}
    file_id = caller.upload(request_lines(1), fields=fields).json()["id"]
    clock.advance(3601)
    assert caller.call("GET", f"/files/{file_id}").status == 404
    assert caller.call("GET", "/files").json()["data"] == []


def test_files_without_expiry_are_limited_apart_from_those_with(start: Start) -> None:
    """Item 6."""
    caller = start("azure", files_limit=2, expiring_files_limit=1)
    fields = {"expires_after[anchor]": "created_at", "expires_after[seconds]": str(20 * DAY)}
    assert [caller.upload(request_line()).status for _ in range(3)] == [201, 201, 400]
    full = error_of(caller.upload(request_line()))
    assert full == {
        "code": "quotaExceeded",
        "message": "The quota for files without expiry is reached. The maximum is 2.",
    }
    assert [caller.upload(request_line(), fields=fields).status for _ in range(2)] == [201, 400]


def test_default_file_limits_are_the_documented_ones(start: Start) -> None:
    """Item 6."""
    config = start("azure").emulator.config
    assert (config.files_limit, config.expiring_files_limit) == (500, 10_000)


def test_outputs_do_not_count_against_the_file_limit_and_deletion_makes_room(start: Start) -> None:
    """Item 6."""
    caller = start("azure", files_limit=1)
    batch = caller.run(request_lines(1))
    assert caller.upload(request_line()).status == 400
    caller.call("DELETE", f"/files/{batch['input_file_id']}")
    assert caller.upload(request_line()).status == 201


def test_deleted_file_answers_404_and_its_content_is_gone(start: Start) -> None:
    caller = start("azure")
    file_id = caller.ready_file(request_lines(1))
    reply = caller.call("DELETE", f"/files/{file_id}")
    assert reply.json() == {"id": file_id, "object": "file", "deleted": True}
    for path in (f"/files/{file_id}", f"/files/{file_id}/content"):
        assert caller.call("GET", path).status == 404
    assert caller.call("DELETE", f"/files/{file_id}").status == 404


def test_content_comes_back_byte_for_byte(start: Start) -> None:
    content = request_lines(50) + b"\xff\x00 not even JSON"
    caller = start("openai")
    assert caller.content(caller.ready_file(content)) == content


def test_empty_file_downloads_as_zero_bytes(start: Start) -> None:
    caller = start("openai")
    reply = caller.call("GET", f"/files/{caller.ready_file(b'')}/content")
    assert (reply.status, reply.length, reply.read()) == (200, 0, b"")


def test_azure_refuses_a_file_part_without_content_type(start: Start) -> None:
    assert start("azure").upload(request_lines(1), content_type=None).status == 400
    assert start("openai").upload(request_lines(1), content_type=None).status == 200


def test_openai_refuses_another_extension(start: Start) -> None:
    assert start("openai").upload(request_lines(1), name="batch.json").status == 400


def test_oversized_file_is_refused_and_leaves_nothing_behind(start: Start) -> None:
    caller = start("openai", file_bytes_limit=100)
    assert caller.upload(request_lines(10)).status == 400
    assert caller.call("GET", "/files").json()["data"] == []


def test_upload_that_ends_early_is_refused_and_leaves_nothing_behind(start: Start) -> None:
    caller = start("openai")
    assert caller.upload(b"", form=b"--the-boundary\r\nContent-Disposition: form-data; na").status == 400
    assert caller.emulator.report()["counts"]["uploads"] == 0


def test_unknown_purpose_is_refused(start: Start) -> None:
    reply = start("azure").upload(request_lines(1), fields={"purpose": "batch_input"})
    assert (reply.status, error_of(reply)["code"]) == (400, "invalidPayload")


def test_file_list_pages_newest_first(start: Start) -> None:
    """Item 23."""
    caller = start("openai")
    ids = [caller.ready_file(request_line(), name=f"f{n}.jsonl") for n in range(5)]
    seen: list[str] = []
    query = {"limit": "2"}
    while True:
        page = caller.call("GET", "/files", query=query).json()
        seen += [file["id"] for file in page["data"]]
        if not page["has_more"]:
            break
        query = {"limit": "2", "after": page["last_id"]}
    assert seen == ids[::-1]
    oldest = caller.call("GET", "/files", query={"order": "asc", "limit": "1"}).json()
    assert oldest["data"][0]["id"] == ids[0]


def test_file_list_of_2024_10_21_knows_no_paging(start: Start) -> None:
    """Item 23."""
    caller = start("azure", version="2024-10-21")
    ids = [caller.ready_file(request_line()) for _ in range(3)]
    page = caller.call("GET", "/files", query={"limit": "1", "after": ids[1]}).json()
    assert len(page["data"]) == 3
    assert "has_more" not in page


def test_file_list_filters_by_purpose(start: Start) -> None:
    caller = start("openai")
    batch = caller.run(request_lines(1))
    for purpose, file_id in (("batch", batch["input_file_id"]), ("batch_output", batch["output_file_id"])):
        page = caller.call("GET", "/files", query={"purpose": purpose}).json()
        assert [file["id"] for file in page["data"]] == [file_id]


def test_import_by_url_reads_a_blob_on_dated_azure_only(start: Start) -> None:
    caller = start("azure")
    caller.emulator.put_blob("https://store.example/c/in.jsonl", request_lines(2))
    asked = {"purpose": "batch", "filename": "in.jsonl", "content_url": "https://store.example/c/in.jsonl"}
    assert caller.call("POST", "/files/import", value=asked).status == 201
    assert caller.at("azure-v1").call("POST", "/files/import", value=asked).status == 404
    lost = caller.call("POST", "/files/import", value={**asked, "content_url": "https://store.example/none"})
    assert error_of(lost)["code"] == "fileImportFailed"


def test_upload_session_joins_parts_in_the_order_asked_for(start: Start) -> None:
    caller = start("azure")
    content = request_lines(3)
    asked = {
        "purpose": "batch",
        "filename": "big.jsonl",
        "bytes": len(content),
        "mime_type": "application/jsonl",
    }
    session = caller.call("POST", "/uploads", value=asked).json()
    assert (session["status"], session["object"]) == ("pending", "upload")
    blocks = []
    for piece in (content[:100], content[100:]):
        blocks.append(_add_part(caller, session["id"], piece)["azure_block_id"])
    done = caller.call("POST", f"/uploads/{session['id']}/complete", value={"part_ids": blocks}).json()
    assert done["status"] == "completed"
    assert caller.content(done["file"]["id"]) == content


def test_upload_session_of_openai_takes_part_ids_and_can_be_cancelled(start: Start) -> None:
    caller = start("openai")
    asked = {"purpose": "batch", "filename": "big.jsonl", "bytes": 3, "mime_type": "application/jsonl"}
    first, second = (caller.call("POST", "/uploads", value=asked).json()["id"] for _ in range(2))
    part = _add_part(caller, first, b"abc")["id"]
    assert caller.call("POST", f"/uploads/{first}/complete", value={"part_ids": ["part_x"]}).status == 400
    assert caller.call("POST", f"/uploads/{first}/complete", value={"part_ids": [part]}).status == 200
    assert caller.call("POST", f"/uploads/{second}/cancel").json()["status"] == "cancelled"
    assert _part_status(caller, second) == 400


def test_upload_session_expires_and_is_unknown_to_azure_v1(start: Start) -> None:
    clock = ManualClock()
    caller = start("openai", clock=clock)
    asked = {"purpose": "batch", "filename": "big.jsonl", "bytes": 3, "mime_type": "application/jsonl"}
    session = caller.call("POST", "/uploads", value=asked).json()
    clock.advance(3601)
    assert _part_status(caller, session["id"]) == 400
    assert caller.at("azure-v1").call("POST", "/uploads", value=asked).status == 404


def _send_part(caller: Caller, upload_id: str, piece: bytes) -> Response:
    kind = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    body = (form_bytes(piece, part="data", name="data"),)
    return caller.call("POST", f"/uploads/{upload_id}/parts", body=body, headers=kind)


def _add_part(caller: Caller, upload_id: str, piece: bytes) -> dict[str, str]:
    part = _send_part(caller, upload_id, piece).json()
    assert part["object"] == "upload.part"
    return dict(part)


def _part_status(caller: Caller, upload_id: str) -> int:
    return _send_part(caller, upload_id, b"abc").status
