"""Which credentials are meant: contract section 4, row by row."""

from __future__ import annotations

from typing import Any

import pytest

from langbatch.errors import SetupError
from langbatch.providers.sign_in import choose_credentials


class Credential:
    def get_token(self, *scopes: str) -> str:
        return "token"


def token() -> str:
    return "token"


EXPLICIT: dict[str, dict[str, Any]] = {
    "key": {"api_key": "k"},
    "token": {"azure_ad_token": "t"},
    "token_provider": {"azure_ad_token_provider": token},
    "credential": {"credential": Credential()},
    "client_secret": {"tenant_id": "t", "client_id": "c", "client_secret": "s"},
    "username_password": {"azure_username": "u", "azure_password": "p", "client_id": "c"},
    "default": {"client_id": "c"},
}
FULL = {
    "AZURE_API_KEY": "key-1",
    "AZURE_OPENAI_API_KEY": "key-2",
    "AZURE_AD_TOKEN": "token-1",
    "AZURE_OPENAI_AD_TOKEN": "token-2",
    "AZURE_TENANT_ID": "tenant",
    "AZURE_CLIENT_ID": "client",
    "AZURE_CLIENT_SECRET": "secret",
    "AZURE_USERNAME": "user",
    "AZURE_PASSWORD": "password",
    "AZURE_SCOPE": "https://ai.azure.com/.default",
}


@pytest.mark.parametrize("kind", [kind for kind in EXPLICIT if kind != "default"])
def test_an_explicit_credential_beats_a_full_environment(kind: str) -> None:
    assert choose_credentials("azure", EXPLICIT[kind], FULL).kind == kind


@pytest.mark.parametrize("kind", EXPLICIT)
def test_an_explicit_credential_needs_no_environment(kind: str) -> None:
    assert choose_credentials("azure", EXPLICIT[kind], {}).kind == kind


def test_the_environment_is_read_in_the_contracts_order() -> None:
    environ = dict(FULL)
    found = []
    for gone in (
        "AZURE_API_KEY",
        "AZURE_OPENAI_API_KEY",
        "AZURE_AD_TOKEN",
        "AZURE_OPENAI_AD_TOKEN",
        "AZURE_CLIENT_SECRET",
        "AZURE_PASSWORD",
    ):
        credentials = choose_credentials("azure", {}, environ)
        found.append(credentials.api_key or credentials.token or credentials.kind)
        environ[gone] = ""
    found.append(choose_credentials("azure", {}, environ).kind)
    assert found == ["key-1", "key-2", "token-1", "token-2", "client_secret", "username_password", "default"]


@pytest.mark.parametrize("one", ["key", "token", "token_provider", "credential", "client_secret"])
@pytest.mark.parametrize("other", ["key", "token", "token_provider", "credential", "username_password"])
def test_two_explicit_credentials_contradict_each_other(one: str, other: str) -> None:
    if one == other:
        assert choose_credentials("azure", EXPLICIT[one], {}).kind == one
        return
    with pytest.raises(SetupError, match="given twice"):
        choose_credentials("azure", {**EXPLICIT[one], **EXPLICIT[other]}, {})


def test_parts_of_an_identity_are_completed_from_the_environment() -> None:
    credentials = choose_credentials("azure", {"client_secret": "mine"}, FULL)
    assert (credentials.tenant_id, credentials.client_id) == ("tenant", "client")
    assert credentials.client_secret == "mine"
    assert credentials.scope == "https://ai.azure.com/.default"


@pytest.mark.parametrize(
    ("given", "missing"),
    [
        ({"client_secret": "s"}, ["AZURE_TENANT_ID", "AZURE_CLIENT_ID"]),
        ({"tenant_id": "t", "client_id": "c"}, ["AZURE_CLIENT_SECRET"]),
        ({"azure_username": "u", "azure_password": "p"}, ["AZURE_CLIENT_ID"]),
        ({"azure_username": "u", "client_id": "c"}, ["AZURE_PASSWORD"]),
    ],
)
def test_a_half_given_identity_says_what_is_missing(given: dict[str, str], missing: list[str]) -> None:
    with pytest.raises(SetupError) as refusal:
        choose_credentials("azure", given, {})
    assert all(name in refusal.value.message for name in missing)


def test_a_user_name_without_a_client_id_in_the_environment_says_so() -> None:
    with pytest.raises(SetupError, match="AZURE_CLIENT_ID"):
        choose_credentials("azure", {}, {"AZURE_USERNAME": "u", "AZURE_PASSWORD": "p"})


def test_a_client_id_alone_is_a_managed_identity() -> None:
    credentials = choose_credentials("azure", {"client_id": "mine"}, {"AZURE_API_KEY": "key"})
    assert (credentials.kind, credentials.client_id) == ("default", "mine")


def test_a_scope_may_be_given_or_set() -> None:
    assert choose_credentials("azure", {}, {}).scope == "https://cognitiveservices.azure.com/.default"
    assert choose_credentials("azure", {}, {"AZURE_SCOPE": "set"}).scope == "set"
    assert choose_credentials("azure", {"azure_scope": "given"}, {"AZURE_SCOPE": "set"}).scope == "given"


def test_a_callable_key_is_a_token_provider() -> None:
    credentials = choose_credentials("azure", {"api_key": token}, {})
    assert (credentials.kind, credentials.token_provider) == ("token_provider", token)


@pytest.mark.parametrize(
    "given",
    [
        {"api_key": ""},
        {"api_key": "two words"},
        {"api_key": "dash–ed"},
        {"api_key": 5},
        {"azure_ad_token": "a\nb"},
        {"azure_ad_token_provider": "not callable"},
        {"credential": object()},
    ],
)
def test_what_cannot_be_a_credential_is_refused_without_quoting_it(given: dict[str, Any]) -> None:
    with pytest.raises(SetupError) as refusal:
        choose_credentials("azure", given, FULL)
    assert "two words" not in refusal.value.message
    assert "dash" not in refusal.value.message


def test_a_pasted_newline_is_trimmed() -> None:
    assert choose_credentials("azure", {}, {"AZURE_API_KEY": " key-1\n"}).api_key == "key-1"


def test_openai_needs_a_key_and_says_where_from() -> None:
    assert choose_credentials("openai", {}, {"OPENAI_API_KEY": "sk-1"}).api_key == "sk-1"
    assert choose_credentials("openai", {"api_key": "sk-2"}, {"OPENAI_API_KEY": "sk-1"}).api_key == "sk-2"
    with pytest.raises(SetupError) as refusal:
        choose_credentials("openai", {}, FULL)
    assert "OPENAI_API_KEY" in (refusal.value.hint or "")
