"""Tokens over days: kept, renewed early, renewed after a refusal, and what it means when none can be had."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import azure.identity
import pytest

from langbatch.errors import AccessRefused, ProviderError, Unreachable
from langbatch.providers.credentials import Access, Credentials, build_credential


class Clock:
    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class Issuer:
    """Looks like an azure-identity credential; its tokens last an hour."""

    def __init__(self, clock: Clock, fails: Exception | None = None) -> None:
        self.clock = clock
        self.fails = fails
        self.issued = 0
        self.closed = False

    def get_token(self, *scopes: str) -> Any:
        if self.fails is not None:
            raise self.fails
        self.issued += 1

        class Token:
            token = f"token-{id(self) % 1000}-{self.issued}"
            expires_on: float | None = self.clock.time + 3600

        return Token()

    def close(self) -> None:
        self.closed = True


def access_to(issuer: Issuer, clock: Clock) -> Access:
    return Access(Credentials("credential", credential=issuer), key_header="api-key", now=clock)


def test_a_token_is_kept_while_it_is_good() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    access = access_to(issuer, clock)
    first = access.headers()
    clock.time += 3200
    assert access.headers() == first
    assert issuer.issued == 1


def test_a_token_is_renewed_before_it_expires() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    access = access_to(issuer, clock)
    first = access.headers()
    clock.time += 3301
    assert access.headers() != first


def test_a_job_of_three_days_is_never_sent_an_expired_token() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    access = access_to(issuer, clock)
    for _ in range(3 * 24 * 60):
        access.headers()
        clock.time += 60
    assert 72 <= issuer.issued <= 80


def test_a_failing_renewal_lives_on_the_old_token_until_its_end() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    access = access_to(issuer, clock)
    first = access.headers()
    issuer.fails = OSError("login.microsoftonline.com is down")
    clock.time += 3400
    assert access.headers() == first
    clock.time += 190
    with pytest.raises(Unreachable):
        access.headers()


def test_an_undated_token_is_used_for_minutes_only() -> None:
    clock = Clock()

    class Undated:
        count = 0

        def get_token(self, *scopes: str) -> Any:
            self.count += 1

            class Token:
                token = f"t{self.count}"

            return Token()

    access = Access(Credentials("credential", credential=Undated()), key_header="api-key", now=clock)
    first = access.headers()
    clock.time += 200
    assert access.headers() == first
    clock.time += 200
    assert access.headers() != first


def test_a_refused_token_is_replaced_by_another() -> None:
    clock = Clock()
    access = access_to(Issuer(clock), clock)
    refused = access.headers()
    fresh = access.headers_after_refusal(refused)
    assert fresh is not None
    assert fresh != refused
    assert access.headers() == fresh


def test_a_token_that_another_thread_renewed_is_not_thrown_away() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    access = access_to(issuer, clock)
    refused = access.headers()
    renewed = access.headers_after_refusal(refused)
    assert access.headers_after_refusal(refused) == renewed
    assert issuer.issued == 2


def test_the_same_token_again_is_no_second_try() -> None:
    same = Access(Credentials("token_provider", token_provider=lambda: "same"), key_header="api-key")
    assert same.headers_after_refusal(same.headers()) is None


@pytest.mark.parametrize("kind", ["key", "token"])
def test_a_fixed_secret_has_no_second_try(kind: Any) -> None:
    access = Access(Credentials(kind, api_key="k" * 9, token="t" * 9), key_header="api-key")
    assert access.headers_after_refusal(access.headers()) is None


def test_after_a_refusal_our_own_credential_is_built_anew() -> None:
    """azure-identity keeps tokens itself, and would hand out the refused one again."""
    clock = Clock()
    built: list[Issuer] = []

    def build(_: Credentials) -> Issuer:
        built.append(Issuer(clock))
        return built[-1]

    access = Access(Credentials("default"), key_header="api-key", now=clock, build=build)
    access.headers_after_refusal(access.headers())
    assert len(built) == 2
    access.close()
    assert built[1].closed


def test_a_users_credential_stays_open() -> None:
    clock = Clock()
    issuer = Issuer(clock)
    access = access_to(issuer, clock)
    access.headers()
    access.close()
    assert not issuer.closed


class ServiceRequestError(Exception):
    """azure-core's name for a connection that failed."""


class ClientAuthenticationError(Exception):
    """azure-core's name for a refused sign-in."""


@pytest.mark.parametrize(
    ("problem", "family"),
    [
        (ServiceRequestError("dns"), Unreachable),
        (TimeoutError("slow"), Unreachable),
        (ClientAuthenticationError("AADSTS7000215: invalid secret"), AccessRefused),
        (ValueError("odd"), AccessRefused),
    ],
)
def test_a_network_that_is_down_is_not_a_wrong_password(
    problem: Exception, family: type[ProviderError]
) -> None:
    clock = Clock()
    with pytest.raises(family) as trouble:
        access_to(Issuer(clock, problem), clock).headers()
    assert trouble.value.__context__ is None


def test_no_sign_in_at_all_tells_how_to_sign_in() -> None:
    def build(_: Credentials) -> Issuer:
        return Issuer(Clock(), ClientAuthenticationError("DefaultAzureCredential failed"))

    access = Access(Credentials("default"), key_header="api-key", build=build)
    with pytest.raises(AccessRefused) as trouble:
        access.headers()
    assert "AZURE_API_KEY" in (trouble.value.hint or "")


async def _later() -> str:
    return "token"


@pytest.mark.parametrize("answer", ["", None, 7, "two\nlines", "bläh", _later])
def test_what_is_no_token_is_not_sent(answer: Any) -> None:
    provider = answer if callable(answer) else lambda: answer
    access = Access(Credentials("token_provider", token_provider=provider), key_header="api-key")
    with pytest.raises(AccessRefused):
        access.headers()


def test_the_token_in_use_is_among_the_secrets_to_mask() -> None:
    access = Access(Credentials("token_provider", token_provider=lambda: "tok-en"), key_header="api-key")
    access.headers()
    assert "tok-en" in access.secrets


SECRETS = {"api_key": "s1", "token": "s2", "client_secret": "s3", "password": "s4"}


def test_credentials_never_show_themselves() -> None:
    credentials = Credentials("key", **SECRETS)  # type: ignore[arg-type]
    assert repr(credentials) == f"{credentials}" == "Credentials(kind='key')"
    assert credentials.secrets == ("s1", "s2", "s3", "s4")


def test_each_built_in_sign_in_is_azure_identitys_own() -> None:
    secret = Credentials("client_secret", tenant_id="t", client_id="c", client_secret="s")
    user = Credentials("username_password", tenant_id="t", client_id="c", username="u", password="p")
    default = Credentials("default", client_id="c")
    expected: list[tuple[Credentials, type[Any]]] = [
        (secret, azure.identity.ClientSecretCredential),
        (user, azure.identity.UsernamePasswordCredential),
        (default, azure.identity.DefaultAzureCredential),
    ]
    for credentials, family in expected:
        built = build_credential(credentials)
        assert type(built) is family
        built.close()


def test_reading_configuration_loads_no_sdk() -> None:
    program = (
        "import sys, langbatch.config.resolving as c, langbatch.providers as p, langbatch.redaction\n"
        "t, _ = c.resolve_target('azure', 'responses', environ={'AZURE_API_BASE': 'https://x.openai.azure.com'})\n"
        "p.limits_for(t)\n"
        "heavy = {'openai', 'azure', 'httpx', 'httpx2', 'platformdirs', 'sqlalchemy', 'pydantic'}\n"
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
