from __future__ import annotations

import email.utils
import json
from collections.abc import Iterator
from typing import Any

import pytest

from emulator.calls import Caller, Start, request_line, request_lines
from langbatch.emulator.clock import ManualClock
from langbatch.emulator.config import EmulatorConfig
from langbatch.emulator.faults import FAULTS, parse_fault
from langbatch.emulator.service import Emulator
from langbatch.emulator.wire import Response

# ---------------------------------------------------------------- grammar


@pytest.mark.parametrize(
    ("text", "name", "param", "selector", "number"),
    [
        ("create-500", "create-500", None, "every", 0),
        ("create-500@3", "create-500", None, "nth", 3),
        ("poll-429-ms=100*2", "poll-429-ms", "100", "first", 2),
        ("poll-429-long", "poll-429-long", "3600", "every", 0),
        ("download-truncated=0.25%12.5", "download-truncated", "0.25", "percent", 12.5),
        ("upload-renamed=a b@2.jsonl@1", "upload-renamed", "a b@2.jsonl", "nth", 1),
        ("poll-429-garbage=next week", "poll-429-garbage", "next week", "every", 0),
    ],
)
def test_fault_is_name_parameter_selector(
    text: str, name: str, param: str | None, selector: str, number: float
) -> None:
    fault = parse_fault(text)
    assert (fault.name, fault.param, fault.selector, fault.number) == (name, param, selector, number)


@pytest.mark.parametrize(
    "text", ["", "no-such-fault", "create-late=soon", "rows-lost=some", "Create-500", "list-lag=@"]
)
def test_misspelt_fault_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"fault|NAME|takes"):
        parse_fault(text)


def _statuses(caller: Caller, count: int) -> list[int]:
    return [caller.call("GET", "/batches").status for _ in range(count)]


def test_selectors_choose_among_the_hits(start: Start) -> None:
    assert _statuses(start("azure", faults=("list-500@2",)), 4) == [200, 500, 200, 200]
    assert _statuses(start("azure", faults=("list-500*2",)), 4) == [500, 500, 200, 200]
    assert _statuses(start("azure", faults=("list-500",)), 3) == [500, 500, 500]
    some = _statuses(start("azure", faults=("list-500%30",), seed=5), 100)
    assert some == _statuses(start("azure", faults=("list-500%30",), seed=5), 100)
    assert 10 < some.count(500) < 60


def test_first_firing_fault_wins_and_those_behind_do_not_count_the_hit(start: Start) -> None:
    assert _statuses(start("azure", faults=("list-500@1", "list-429@1")), 3) == [500, 429, 200]


def test_faults_written_alike_count_apart(start: Start) -> None:
    assert _statuses(start("azure", faults=("list-500@1", "list-500@1")), 3) == [500, 500, 200]


def test_faults_can_be_set_and_cleared_at_run_time(start: Start) -> None:
    caller = start("azure")
    body = json.dumps({"add": ["list-500@1", "list-403@1"]}).encode()
    assert caller.raw("POST", "/_emulator/faults", body=(body,)).json() == {
        "faults_set": ["list-500@1", "list-403@1"]
    }
    assert _statuses(caller, 1) == [500]
    caller.emulator.remove_faults("list-403")
    assert _statuses(caller, 2) == [200, 200]
    caller.emulator.remove_faults()
    caller.emulator.add_faults("list-500@1")
    assert _statuses(caller, 2) == [500, 200]
    assert caller.emulator.faults_fired() == {"list-500": 2}


def test_misspelt_fault_at_run_time_is_a_400_and_sets_nothing(start: Start) -> None:
    caller = start("azure")
    reply = caller.raw("POST", "/_emulator/faults", body=(b'{"add": ["list-500", "nonsense"]}',))
    assert reply.status == 400
    assert caller.emulator.report()["faults_set"] == []


# ---------------------------------------------------------------- every name


@pytest.fixture(scope="module")
def shared() -> Iterator[Emulator]:
    """One emulator for the tour below: making one for each of 250 names would take most of the time."""
    with Emulator(EmulatorConfig.instant(files_limit=100_000), clock=ManualClock()) as emulator:
        yield emulator


def _tour(caller: Caller) -> None:
    """Every verb once at least, whatever comes back: batches that complete, fail and are cancelled."""
    good = _id_of(caller.upload(request_lines(4)))
    for _ in range(2):
        caller.call("GET", f"/files/{good}")
    for content in (request_lines(4), b"oops\n"):
        file_id = _id_of(caller.upload(content)) or good
        caller.call("GET", f"/files/{file_id}")
        batch_id = _id_of(caller.create(file_id, metadata={"a": "b", "c": "d"}))
        for _ in range(6):
            reply = caller.call("GET", f"/batches/{batch_id}")
        try:
            output = reply.json()["output_file_id"]
        except (ValueError, KeyError, TypeError):
            output = None
        caller.call("GET", f"/files/{output or good}/content")
    doomed = _id_of(caller.create(good))
    caller.call("POST", f"/batches/{doomed}/cancel")
    for _ in range(3):
        caller.call("GET", f"/batches/{doomed}")
    for path in ("/batches", "/files"):
        caller.call("GET", path, query={"limit": "3"})
        caller.call("GET", path, query={"limit": "3", "after": doomed})
    caller.call("DELETE", f"/files/{good}")


def _id_of(reply: Response) -> str:
    """The id in a reply, or one that exists nowhere."""
    try:
        return str(reply.json()["id"])
    except (ValueError, KeyError, TypeError):
        return "nothing"


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_every_fault_in_the_registry_fires_and_is_counted(shared: Emulator, name: str) -> None:
    before = shared.faults_fired().get(name, 0)
    shared.add_faults(name)
    try:
        _tour(Caller(shared, "azure", "2025-04-01-preview"))
    finally:
        shared.remove_faults()
    assert shared.faults_fired().get(name, 0) > before


def test_registry_is_served_with_counts(start: Start) -> None:
    caller = start("azure", faults=("list-500@1",))
    _statuses(caller, 1)
    table = {entry["name"]: entry for entry in caller.raw("GET", "/_emulator/faults").json()}
    assert set(table) == set(FAULTS)
    assert table["list-500"]["fired"] == 1
    assert all(entry["summary"] for entry in table.values())


# ---------------------------------------------------------------- throttling


@pytest.mark.parametrize("verb", ["poll", "upload", "download", "list"])
@pytest.mark.parametrize(
    ("effect", "header", "value"),
    [
        ("429-ms=1500", "retry-after-ms", "1500"),
        ("429-short=7", "retry-after", "7"),
        ("429-long", "retry-after", "3600"),
        ("429-negative", "retry-after", "-5"),
        ("429-garbage", "retry-after", "soon"),
    ],
)
def test_throttling_gives_its_advice_in_one_header(
    start: Start, verb: str, effect: str, header: str, value: str
) -> None:
    """Item 19."""
    caller = start("openai", faults=(f"{verb}-{effect}",))
    reply = _call_of(caller, verb)
    assert reply.status == 429
    assert reply.json()["error"]["code"] == "429"
    advice = {key: text for key, text in reply.headers if key.startswith("retry-after")}
    assert advice == {header: value}


def test_throttling_can_give_a_date_or_nothing(start: Start) -> None:
    """Item 19."""
    clock = ManualClock(1_800_000_000)
    caller = start("openai", clock=clock, faults=("list-429-date=90@1", "list-429@1"))
    dated = caller.call("GET", "/batches").header("retry-after")
    assert dated is not None
    assert email.utils.parsedate_to_datetime(dated).timestamp() == 1_800_000_090
    bare = caller.call("GET", "/batches")
    assert bare.status == 429
    assert bare.header("retry-after") is bare.header("retry-after-ms") is None


def _call_of(caller: Caller, verb: str) -> Response:
    if verb == "upload":
        return caller.upload(request_lines(1))
    if verb == "list":
        return caller.call("GET", "/batches")
    if verb == "poll":
        return caller.call("GET", "/batches/batch_x")
    return caller.call("GET", "/files/file-x/content")


# ---------------------------------------------------------------- lost replies


@pytest.mark.parametrize(
    "effect",
    ["drop", "reset", "408", "409", "500", "503-html", "html", "truncated-json", "redirect", "null-id"],
)
def test_create_is_committed_although_its_reply_is_lost_and_listing_finds_it(
    start: Start, effect: str
) -> None:
    """Item 21."""
    caller = start("azure", faults=(f"create-committed-{effect}@1",))
    file_id = caller.ready_file(request_lines(2))
    lost = caller.create(file_id, metadata={"tag": "mine"})
    assert lost.drop_connection or lost.status not in (200, 201) or not _is_batch(lost)
    listed = caller.call("GET", "/batches").json()["data"]
    assert [(batch["input_file_id"], batch["metadata"]) for batch in listed] == [(file_id, {"tag": "mine"})]
    assert caller.create(file_id, metadata={"tag": "mine"}).status == 201
    assert caller.emulator.report()["counts"]["batches"] == 2


def _is_batch(reply: Response) -> bool:
    try:
        return bool(reply.json()["id"])
    except (ValueError, KeyError):
        return False


def test_reply_to_create_can_name_another_input_file(start: Start) -> None:
    """Item 21."""
    caller = start("azure", faults=("create-committed-other-file@1",))
    file_id = caller.ready_file(request_lines(2))
    reply = caller.create(file_id).json()
    assert reply["input_file_id"] != file_id
    assert caller.poll(reply["id"])["input_file_id"] == file_id


@pytest.mark.parametrize("effect", ["drop", "500", "409", "redirect"])
def test_create_without_committed_in_its_name_does_nothing(start: Start, effect: str) -> None:
    """Item 21."""
    caller = start("azure", faults=(f"create-{effect}@1",))
    caller.create(caller.ready_file(request_lines(2)))
    assert caller.call("GET", "/batches").json()["data"] == []
    assert caller.emulator.report()["counts"]["batches"] == 0


def test_late_create_comes_to_be_after_its_delay(start: Start) -> None:
    """Item 21."""
    clock = ManualClock()
    caller = start("azure", clock=clock, faults=("create-late=60@1",))
    file_id = caller.ready_file(request_lines(1))
    assert caller.create(file_id).drop_connection == "close"
    assert caller.call("GET", "/batches").json()["data"] == []
    clock.advance(60)
    assert [b["input_file_id"] for b in caller.call("GET", "/batches").json()["data"]] == [file_id]


def test_late_create_fails_when_its_input_was_deleted_meanwhile(start: Start) -> None:
    """Item 21."""
    clock = ManualClock()
    caller = start("azure", clock=clock, faults=("create-late=60@1",))
    file_id = caller.ready_file(request_lines(1))
    caller.create(file_id)
    caller.call("DELETE", f"/files/{file_id}")
    clock.advance(60)
    assert caller.call("GET", "/batches").json()["data"] == []
    assert caller.emulator.report()["late_creates_refused"] == 1


def test_lost_upload_is_found_by_its_name(start: Start) -> None:
    """Item 21."""
    caller = start("azure", faults=("upload-committed-drop@1",))
    assert caller.upload(request_lines(1), name="mine.jsonl").drop_connection == "close"
    assert [file["filename"] for file in caller.call("GET", "/files").json()["data"]] == ["mine.jsonl"]


def test_redirect_points_back_to_the_same_address(start: Start) -> None:
    """Item 21."""
    caller = start("azure", faults=("create-redirect@1",))
    reply = caller.create("file-x")
    assert reply.status == 307
    assert reply.header("location") == "http://emulator/openai/batches?api-version=2025-04-01-preview"


# ---------------------------------------------------------------- spoiled reads


def test_503_can_be_an_html_page(start: Start) -> None:
    """Item 22."""
    reply = start("azure", faults=("poll-503-html",)).call("GET", "/batches/batch_x")
    assert (reply.status, reply.header("content-type")) == (503, "text/html")
    assert reply.read().startswith(b"<html>")


def test_download_can_break_off_or_be_short_without_a_sign(start: Start) -> None:
    """Item 22."""
    caller = start("openai", faults=("download-truncated=0.5@1", "download-short=0.25@1", "download-html@1"))
    content = request_lines(20)
    file_id = caller.ready_file(content)
    html, torn, short, whole = (caller.call("GET", f"/files/{file_id}/content") for _ in range(4))
    assert (html.status, html.header("content-type")) == (200, "text/html")
    assert (torn.length, len(torn.read())) == (len(content), len(content) // 2)
    assert short.length == len(short.read()) == len(content) // 4
    assert whole.read() == content


def test_connection_can_be_reset(start: Start) -> None:
    """Item 22."""
    caller = start("azure", faults=("poll-reset",))
    assert caller.call("GET", "/batches/batch_x").drop_connection == "reset"


def test_answer_can_be_slow(start: Start) -> None:
    caller = start("azure", faults=("list-delay=2.5@1",))
    assert [caller.call("GET", "/batches").delay_seconds for _ in range(2)] == [2.5, 0.0]


# ---------------------------------------------------------------- lists and old batches


@pytest.mark.parametrize("verb", ["list", "list-files"])
def test_list_has_legacy_modes(start: Start, verb: str) -> None:
    """Item 23."""
    path = "/batches" if verb == "list" else "/files"
    caller = start("openai", faults=(f"{verb}-no-has-more@1", f"{verb}-as-value@2"))
    caller.begin(request_lines(1))
    first, second, third = (caller.call("GET", path).json() for _ in range(3))
    assert "has_more" not in first
    assert "data" not in second
    assert len(second["value"]) == 1
    assert third["has_more"] is False


def test_list_can_repeat_its_cursor_for_ever(start: Start) -> None:
    """Item 23."""
    caller = start("openai", faults=("list-repeats-cursor",))
    batch_id = caller.begin(request_lines(1))
    page = caller.call("GET", "/batches", query={"after": batch_id}).json()
    assert ([batch["id"] for batch in page["data"]], page["has_more"]) == ([batch_id], True)


def test_list_can_show_a_batch_as_it_was_made(start: Start) -> None:
    caller = start("openai", faults=("list-stale@1",))
    batch_id = caller.begin(request_lines(1))
    ended = caller.finish(batch_id)
    stale, fresh = (caller.call("GET", "/batches").json()["data"][0] for _ in range(2))
    assert (stale["id"], stale["status"], stale["output_file_id"]) == (batch_id, "validating", None)
    assert fresh == ended


@pytest.mark.parametrize("verb", ["list", "list-files"])
def test_new_item_appears_in_lists_only_after_a_while(start: Start, verb: str) -> None:
    """Item 23."""
    clock = ManualClock()
    path = "/batches" if verb == "list" else "/files"
    caller = start("openai", clock=clock, faults=(f"{verb}-lag=30@1",))
    batch_id = caller.begin(request_lines(1))
    assert caller.poll(batch_id)["id"] == batch_id
    assert caller.call("GET", path).json()["data"] == []
    clock.advance(30)
    assert len(caller.call("GET", path).json()["data"]) == 1


def test_old_batch_answers_404_and_leaves_the_list(start: Start) -> None:
    """Item 23."""
    clock = ManualClock()
    caller = start("openai", clock=clock, faults=("old-batch-404=100",))
    batch_id = caller.begin(request_lines(1))
    assert caller.call("GET", f"/batches/{batch_id}").status == 200
    clock.advance(101)
    assert caller.call("GET", f"/batches/{batch_id}").status == 404
    assert caller.call("GET", "/batches").json()["data"] == []


def test_known_batch_can_answer_404_for_once(start: Start) -> None:
    """Item 23."""
    caller = start("azure", faults=("poll-404@2",))
    batch_id = caller.begin(request_lines(1))
    assert [caller.call("GET", f"/batches/{batch_id}").status for _ in range(3)] == [200, 404, 200]


# ---------------------------------------------------------------- odd objects


@pytest.mark.parametrize(
    ("fault", "key", "value"),
    [
        ("batch-metadata-null", "metadata", None),
        ("batch-metadata-non-string", "metadata", {"a": ["1"], "b": 1}),
        ("batch-unknown-status=resting", "status", "resting"),
        ("batch-null-counts", "request_counts", {"total": None, "completed": None, "failed": None}),
        ("batch-ids-empty", "output_file_id", ""),
        ("batch-endpoint-null", "endpoint", None),
    ],
)
def test_batch_object_can_be_odd_for_one_reading(start: Start, fault: str, key: str, value: Any) -> None:
    caller = start("openai", faults=(f"{fault}@2",))
    file_id = caller.ready_file(request_lines(1))
    first = caller.create(file_id, metadata={"a": "1", "b": "2"}).json()
    assert first[key] != value
    assert caller.poll(first["id"])[key] == value
    assert caller.poll(first["id"])[key] != value


def test_metadata_can_come_in_another_order(start: Start) -> None:
    caller = start("openai", faults=("batch-metadata-reordered",))
    reply = caller.create(caller.ready_file(request_lines(1)), metadata={"a": "1", "b": "2"})
    assert list(reply.json()["metadata"].items()) == [("b", "2"), ("a", "1")]


def test_cancelled_can_be_spelt_canceled(start: Start) -> None:
    caller = start("openai", faults=("batch-canceled",))
    batch_id = caller.begin(request_lines(1))
    caller.call("POST", f"/batches/{batch_id}/cancel")
    assert caller.poll(batch_id)["status"] == "canceled"


def test_completed_batch_can_hide_its_output_file_for_a_while(start: Start) -> None:
    caller = start("openai", faults=("batch-no-output-file@1",))
    batch = caller.run(request_lines(2))
    assert (batch["output_file_id"], batch["request_counts"]["completed"]) == (None, 2)
    assert caller.poll(batch["id"])["output_file_id"]


def test_gateway_can_rename_the_upload(start: Start) -> None:
    caller = start("azure", faults=("upload-renamed=other.jsonl",))
    assert caller.upload(request_lines(1), name="job-0-1.jsonl").json()["filename"] == "other.jsonl"
    batch = caller.run(request_line())
    assert {p.family for p in caller.emulator.each_payment()} == {"job-0"}
    assert batch["status"] == "completed"


def test_file_object_can_lie_about_its_bytes(start: Start) -> None:
    content = request_lines(1)
    caller = start("openai", faults=("upload-wrong-bytes=3@1", "upload-null-bytes@2"))
    sizes = [caller.upload(content).json()["bytes"] for _ in range(3)]
    assert sizes == [len(content) + 3, None, len(content)]


def test_file_can_stay_pending(start: Start) -> None:
    caller = start("azure", faults=("file-stays-pending",))
    file_id = caller.upload(request_lines(1)).json()["id"]
    assert {caller.call("GET", f"/files/{file_id}").json()["status"] for _ in range(5)} == {"pending"}
