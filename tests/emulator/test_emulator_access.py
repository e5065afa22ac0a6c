from __future__ import annotations

import pytest

from emulator.calls import Caller, Start, request_lines
from langbatch.emulator.clock import ManualClock
from langbatch.emulator.wire import Response

KEY = {"api-key": "right"}
KEY_AS_BEARER = {"authorization": "Bearer right"}


def _list(caller: Caller, credentials: dict[str, str]) -> Response:
    return Caller(caller.emulator, caller.family, caller.version, credentials).call("GET", "/batches")


def _assert_entra(reply: Response) -> None:
    body = reply.json()
    assert reply.status == 401
    assert set(body) == {"statusCode", "message"}
    assert "audience is incorrect (https://cognitiveservices.azure.com)" in body["message"]


def test_any_credentials_are_accepted_by_default_and_counted_by_kind(start: Start) -> None:
    caller = start("azure")
    assert _list(caller, {"api-key": "whatever"}).status == 200
    assert _list(caller, {"authorization": "Bearer whatever"}).status == 200
    assert _list(caller, {}).status == 401
    assert caller.emulator.report()["auth_kinds"] == {"api-key": 1, "bearer": 1, "none": 1}


def test_missing_credentials_are_told_in_the_family_s_words(start: Start) -> None:
    """Item 20."""
    assert _list(start("azure"), {}).json()["error"]["code"] == "401"
    assert _list(start("openai"), {}).json()["error"]["type"] == "invalid_request_error"


def test_openai_does_not_read_the_api_key_header(start: Start) -> None:
    assert _list(start("openai"), {"api-key": "k"}).status == 401


def test_wrong_key_is_401_with_code_401(start: Start) -> None:
    """Item 20."""
    caller = start("azure", api_key="right")
    assert _list(caller, KEY).status == 200
    reply = _list(caller, {"api-key": "wrong"})
    assert reply.status == 401
    assert reply.json()["error"]["code"] == "401"
    assert reply.json()["error"]["message"].startswith("Access denied due to invalid subscription key")


def test_key_as_bearer_is_refused_on_dated_paths_and_accepted_on_v1(start: Start) -> None:
    """Item 20."""
    caller = start("azure", api_key="right")
    _assert_entra(_list(caller, KEY_AS_BEARER))
    assert _list(caller.at("azure-v1"), KEY_AS_BEARER).status == 200
    assert _list(caller.at("openai"), KEY_AS_BEARER).status == 200


def test_unknown_token_gets_the_body_without_error_wrapper(start: Start) -> None:
    """Item 20."""
    caller = start("azure", bearer_tokens=frozenset({"good"}))
    assert _list(caller, {"authorization": "Bearer good"}).status == 200
    _assert_entra(_list(caller, {"authorization": "Bearer bad"}))


def test_token_expires_in_the_middle_of_polling_and_a_fresh_one_works(start: Start) -> None:
    """Item 20."""
    clock = ManualClock()
    caller = start("azure", clock=clock, token_seconds=60)
    batch_id = caller.begin(request_lines(1))
    clock.advance(59)
    assert caller.call("GET", f"/batches/{batch_id}").status == 200
    clock.advance(1)
    _assert_entra(caller.call("GET", f"/batches/{batch_id}"))
    fresh = Caller(caller.emulator, "azure", caller.version, {"authorization": "Bearer fresh"})
    assert fresh.call("GET", f"/batches/{batch_id}").status == 200


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [("poll-401-key", 401, "401"), ("poll-401-role", 401, "PermissionDenied"), ("poll-403", 403, "403")],
)
def test_access_can_be_lost_in_the_middle_of_polling(
    start: Start, fault: str, status: int, code: str
) -> None:
    """Item 20."""
    caller = start("azure", faults=(f"{fault}@2",))
    batch_id = caller.begin(request_lines(1))
    replies = [caller.call("GET", f"/batches/{batch_id}") for _ in range(3)]
    assert [reply.status for reply in replies] == [200, status, 200]
    assert replies[1].json()["error"]["code"] == code


def test_entra_body_can_come_in_the_middle_of_polling(start: Start) -> None:
    """Item 20."""
    caller = start("azure", faults=("poll-401-entra@1",))
    _assert_entra(caller.call("GET", f"/batches/{caller.begin(request_lines(1))}"))


def test_key_authentication_can_be_disabled(start: Start) -> None:
    caller = start("azure", key_auth_disabled=True)
    assert _list(caller, KEY).status == 403
    assert _list(caller, {"authorization": "Bearer token"}).status == 200


def test_admin_view_needs_no_credentials_and_shows_none(start: Start) -> None:
    caller = start("azure", api_key="very-secret")
    _list(caller, {"api-key": "very-secret"})
    reply = caller.raw("GET", "/_emulator/")
    assert reply.status == 200
    assert b"very-secret" not in reply.read()
