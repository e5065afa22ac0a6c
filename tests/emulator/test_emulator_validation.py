from __future__ import annotations

from typing import Any

import pytest

from emulator.calls import Caller, Start, request_line, request_lines

GOOD = request_line("good")


def _faults(caller: Caller, content: bytes, **more: Any) -> list[dict[str, Any]]:
    batch = caller.run(content, **more)
    assert batch["status"] == "failed"
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert not batch["output_file_id"]
    return list(batch["errors"]["data"])


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (GOOD + b'{"custom_id": "a", \n', "invalid_json_line", 2),
        (GOOD + b"\n" + request_line("b"), "invalid_json_line", 2),
        (GOOD + request_line("b", url="/v1/responses"), "url_mismatch", 2),
        (GOOD + request_line("b", model="other"), "model_mismatch", 2),
        (GOOD + request_line("b") + GOOD, "duplicate_custom_id", 3),
        (b"", "empty_file", None),
        (b"[1]\n", "invalid_request", 1),
        (GOOD.replace(b"POST", b"GET"), "invalid_request", 1),
        (GOOD.replace(b'"good"', b"7"), "invalid_request", 1),
        (GOOD.replace(b'"body": {', b'"bode": {'), "invalid_request", 1),
        (GOOD.replace(b'"model": "gpt"', b'"model": null'), "invalid_request", 1),
    ],
)
def test_broken_rule_fails_the_batch_with_code_and_line(
    start: Start, content: bytes, code: str, line: int | None
) -> None:
    """Item 11."""
    fault = _faults(start("azure-v1"), content)[0]
    assert (fault["code"], fault["line"]) == (code, line)


def test_too_many_lines_fail_the_batch(start: Start) -> None:
    """Item 11."""
    assert _faults(start("azure", requests_limit=3), request_lines(4))[0]["code"] == "too_many_tasks"
    assert start("azure", requests_limit=4).run(request_lines(4))["status"] == "completed"


def test_default_request_limits_are_the_documented_ones() -> None:
    """Item 11."""
    from langbatch.emulator.profiles import PROFILES

    limits = {family: profile.requests_limit for family, profile in PROFILES.items()}
    assert limits == {"azure": 100_000, "azure-v1": 100_000, "openai": 50_000}


def test_unknown_deployment_and_wrong_sku_fail_the_batch(start: Start) -> None:
    """Item 11."""
    settings = {"deployments": frozenset({"batchy", "syncy"}), "standard_deployments": frozenset({"syncy"})}
    assert _faults(start("azure", **settings), request_lines(1))[0]["code"] == "model_not_found"
    sku = _faults(start("azure", **settings), request_lines(1, model="syncy"))[0]
    assert (sku["code"], "SKU" in sku["message"]) == ("invalid_request", True)
    assert start("azure", **settings).run(request_lines(1, model="batchy"))["status"] == "completed"


def test_byte_order_mark_is_told_by_the_message_on_azure(start: Start) -> None:
    """Item 11."""
    fault = _faults(start("azure"), b"\xef\xbb\xbf" + GOOD)[0]
    assert "a valid model deployment name couldn't be extracted from the input file" in fault["message"]
    assert _faults(start("openai"), b"\xef\xbb\xbf" + GOOD)[0]["code"] == "invalid_json_line"


@pytest.mark.parametrize(
    ("family", "fault", "line"),
    [
        ("azure", None, "2"),
        ("azure-v1", None, 2),
        ("openai", None, 2),
        ("azure", "batch-line-int", 2),
        ("openai", "batch-line-string", "2"),
        ("openai", "batch-line-null", None),
    ],
)
def test_line_comes_as_number_text_or_null(
    start: Start, family: str, fault: str | None, line: int | str | None
) -> None:
    """Item 11."""
    caller = start(family, faults=(fault,) if fault else ())
    assert _faults(caller, GOOD + b"oops\n")[0]["line"] == line


def test_all_faults_are_listed_up_to_a_cap(start: Start) -> None:
    """Item 11."""
    content = GOOD + b"oops\n" * 5
    assert [fault["line"] for fault in _faults(start("openai"), content)] == [2, 3, 4, 5, 6]
    assert [fault["line"] for fault in _faults(start("openai", errors_listed=1), content)] == [2]


def test_openai_wants_each_url_to_equal_the_endpoint(start: Start) -> None:
    """Item 11."""
    content = request_lines(1, url="/v1/responses")
    assert _faults(start("openai"), content)[0]["code"] == "url_mismatch"
    assert start("azure").run(content)["status"] == "completed"
    assert _faults(start("azure", strict_urls=True), content)[0]["code"] == "url_mismatch"


def test_batch_can_be_told_to_fail_with_any_code(start: Start) -> None:
    """Item 11."""
    caller = start("azure", faults=("batch-fail=input_modified@1",))
    assert _faults(caller, GOOD)[0]["code"] == "input_modified"
    assert caller.run(GOOD)["status"] == "completed"


def test_failed_batch_costs_nothing(start: Start) -> None:
    caller = start("azure")
    _faults(caller, GOOD + b"oops\n")
    assert caller.emulator.payments().executed == 0


def test_missing_final_newline_is_accepted(start: Start) -> None:
    batch = start("azure").run(request_lines(2).rstrip(b"\n"))
    assert batch["request_counts"]["completed"] == 2
