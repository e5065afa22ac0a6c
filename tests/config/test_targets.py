from __future__ import annotations

from typing import Any

import openai
import pytest

from langbatch.config.resolving import reopen_target, resolve_target, target_warnings
from langbatch.errors import SetupError
from langbatch.providers import limits_for, open_provider
from langbatch.providers.endpoints import azure_base_url, azure_query
from langbatch.records import Limits, Target

AZURE = "https://my-res.openai.azure.com"
KEY = {"api_key": "a-key-of-mine"}


def azure(environ: dict[str, str] | None = None, **arguments: Any) -> Target:
    target, _ = resolve_target("azure", "chat_completions", environ=environ or {}, **{**KEY, **arguments})
    return target


@pytest.mark.parametrize(
    "endpoint",
    [
        AZURE,
        f"{AZURE}/",
        f"{AZURE}/openai",
        f"{AZURE}/openai/",
        f"{AZURE}/openai/v1",
        f"{AZURE}/openai/v1/",
        f"{AZURE}/openai/deployments/d/chat/completions?api-version=2024-10-21",
        "  https://MY-RES.openai.azure.com:443  ",
        "my-res.openai.azure.com",
    ],
)
@pytest.mark.parametrize("argument", ["azure_endpoint", "api_base", "base_url"])
def test_every_pasted_azure_url_is_the_same_resource(argument: str, endpoint: str) -> None:
    target = azure({}, **{argument: endpoint}, api_version="2024-10-21")
    assert target.host == "my-res.openai.azure.com"
    assert azure_base_url(target.settings) == f"{AZURE}/openai"
    assert azure_query(target.settings) == {"api-version": "2024-10-21"}


@pytest.mark.parametrize(
    ("endpoint", "version", "base_url", "query"),
    [
        (AZURE, None, f"{AZURE}/openai/v1", {}),
        (AZURE, "v1", f"{AZURE}/openai/v1", {}),
        (AZURE, "preview", f"{AZURE}/openai/v1", {"api-version": "preview"}),
        (f"{AZURE}/openai/v1/", None, f"{AZURE}/openai/v1", {}),
        (
            "https://r.services.ai.azure.com/api/projects/p",
            None,
            "https://r.services.ai.azure.com/openai/v1",
            {},
        ),
        (
            "https://gate.example/llm/openai",
            "2024-10-21",
            "https://gate.example/llm/openai",
            {"api-version": "2024-10-21"},
        ),
        ("https://gate.example/llm/v1", None, "https://gate.example/llm/v1", {}),
        (
            "http://127.0.0.1:9/",
            "2024-07-01-Preview",
            "http://127.0.0.1:9/openai",
            {"api-version": "2024-07-01-preview"},
        ),
    ],
)
def test_the_version_chooses_the_family_of_urls(
    endpoint: str, version: str | None, base_url: str, query: dict[str, str]
) -> None:
    target = azure(azure_endpoint=endpoint, api_version=version)
    assert azure_base_url(target.settings) == base_url
    assert azure_query(target.settings) == query


def test_the_environments_variables_are_read_in_order() -> None:
    environ = {
        "AZURE_API_BASE": "https://first.openai.azure.com",
        "AZURE_OPENAI_ENDPOINT": "https://second.openai.azure.com",
        "AZURE_API_VERSION": "2024-10-21",
        "OPENAI_API_VERSION": "2025-01-01",
    }
    assert azure(environ).host == "first.openai.azure.com"
    assert azure(environ).settings["api_version"] == "2024-10-21"
    del environ["AZURE_API_BASE"], environ["AZURE_API_VERSION"]
    assert azure(environ).host == "second.openai.azure.com"
    assert azure(environ).settings["api_version"] == "2025-01-01"


def test_an_explicit_place_beats_the_environment() -> None:
    environ = {"AZURE_API_BASE": "https://other.openai.azure.com", "AZURE_API_VERSION": "2024-10-21"}
    target = azure(environ, azure_endpoint=AZURE, api_version="v1")
    assert (target.host, target.settings["api_version"]) == ("my-res.openai.azure.com", "v1")


def test_an_explicit_v1_url_beats_a_version_left_in_the_environment() -> None:
    environ = {"AZURE_API_VERSION": "2024-10-21"}
    assert azure(environ, base_url=f"{AZURE}/openai/v1/").settings["api_version"] == "v1"
    assert azure(environ, azure_endpoint=AZURE).settings["api_version"] == "2024-10-21"


@pytest.mark.parametrize("version", ["2024-06-01", "2023-12-01-preview"])
def test_a_version_from_before_batch_is_sent_with_a_warning(version: str) -> None:
    target = azure(azure_endpoint=AZURE, api_version=version)
    assert target.settings["api_version"] == version
    (warning,) = target_warnings(target)
    assert version in warning
    assert "2024-07-01-preview" in warning


@pytest.mark.parametrize(
    "version", ["2024-07-01-preview", "2024-10-21", "2025-04-01-preview", "v1", "preview"]
)
def test_a_version_with_batch_has_no_warning(version: str) -> None:
    assert target_warnings(azure(azure_endpoint=AZURE, api_version=version)) == ()


@pytest.mark.parametrize("version", ["newest", "2024-13-01", "20241021"])
def test_a_version_that_is_none_is_refused(version: str) -> None:
    with pytest.raises(SetupError, match="api_version"):
        azure(azure_endpoint=AZURE, api_version=version)


@pytest.mark.parametrize("name", ["my-res", " my-res ", "my-res/openai"])
def test_a_resources_name_alone_is_no_endpoint(name: str) -> None:
    with pytest.raises(SetupError, match="azure_endpoint is a name, not an address"):
        azure({}, azure_endpoint=name)
    assert azure({}, azure_endpoint="localhost").host == "localhost"


def test_no_endpoint_names_the_variables() -> None:
    with pytest.raises(SetupError) as refusal:
        azure()
    assert "AZURE_API_BASE" in (refusal.value.hint or "")
    assert "AZURE_OPENAI_ENDPOINT" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    "arguments",
    [
        {"azure_endpoint": AZURE, "base_url": AZURE},
        {"azure_endpoint": AZURE, "api_base": "https://other.openai.azure.com"},
        {"azure_endpoint": ""},
        {"azure_endpoint": "ftp://x"},
        {"azure_endpoint": "https://"},
        {"azure_endpoint": "https://x:notaport"},
        {"azure_endpoint": "https://me:hush-hush@x.openai.azure.com"},
        {"azure_endpoint": AZURE, "model": "a", "deployment": "b"},
    ],
)
def test_a_contradictory_or_broken_place_is_refused_without_quoting_it(arguments: dict[str, Any]) -> None:
    with pytest.raises(SetupError) as refusal:
        azure(**arguments)
    assert "hush-hush" not in refusal.value.message


def test_unknown_arguments_are_a_type_error() -> None:
    with pytest.raises(TypeError, match="azure_endpont"):
        azure(azure_endpont=AZURE)
    with pytest.raises(TypeError, match="azure_endpont"):
        reopen_target(azure(azure_endpoint=AZURE), {}, azure_endpont=AZURE)


def test_an_unknown_provider_names_the_known_ones() -> None:
    with pytest.raises(SetupError) as refusal:
        resolve_target("nimbus", "responses", environ={})
    assert "azure, openai" in (refusal.value.hint or "")


@pytest.mark.parametrize(
    "host", ["example.com", "10.0.0.7:8000", "127.0.0.1.example.com", "localhost.example.com"]
)
def test_plain_http_needs_consent(host: str) -> None:
    with pytest.raises(SetupError) as refusal:
        azure(azure_endpoint=f"http://{host}")
    assert "LANGBATCH_ALLOW_HTTP" in (refusal.value.hint or "")
    by_argument = azure(azure_endpoint=f"http://{host}", allow_http=True)
    by_variable = azure({"LANGBATCH_ALLOW_HTTP": "1"}, azure_endpoint=f"http://{host}")
    assert by_argument == by_variable
    assert by_argument.settings["allow_http"] == "true"


@pytest.mark.parametrize(
    "host", ["127.0.0.1:80", "127.9.9.9", "localhost:1", "[::1]:8080", "emulator.localhost"]
)
def test_loopback_never_needs_consent(host: str) -> None:
    assert azure(azure_endpoint=f"http://{host}").settings.get("allow_http") is None


def test_model_and_deployment_mean_the_same_on_azure() -> None:
    assert azure(azure_endpoint=AZURE, deployment="d").model == "d"
    assert azure(azure_endpoint=AZURE, model="d").model == "d"
    assert azure(azure_endpoint=AZURE).model is None


def test_openai_reads_its_own_variables() -> None:
    environ = {
        "OPENAI_API_KEY": "sk-x1",
        "OPENAI_BASE_URL": "http://localhost:8080/v1/",
        "OPENAI_ORG_ID": "org",
        "OPENAI_PROJECT_ID": "proj",
    }
    target, credentials = resolve_target("openai", "embeddings", model="m", environ=environ)
    assert target == Target(
        "openai",
        "localhost:8080",
        "embeddings",
        "m",
        {"base_url": "http://localhost:8080/v1", "organization": "org", "project": "proj"},
    )
    assert credentials.api_key == "sk-x1"


def test_openai_without_a_url_is_openai() -> None:
    target, _ = resolve_target("openai", "embeddings", environ={}, api_key="sk-x1")
    assert target.host == "api.openai.com"
    assert target.settings == {"base_url": "https://api.openai.com/v1"}


@pytest.mark.parametrize(
    "arguments", [{"azure_endpoint": AZURE}, {"tenant_id": "t"}, {"base_url": f"{AZURE}/openai/v1"}]
)
def test_azures_arguments_are_sent_to_azure(arguments: dict[str, str]) -> None:
    with pytest.raises(SetupError) as refusal:
        resolve_target("openai", "embeddings", environ={}, api_key="sk-x1", **arguments)
    assert 'provider="azure"' in (refusal.value.hint or "")


def test_limits_are_known_without_opening() -> None:
    openai_target, _ = resolve_target("openai", "embeddings", environ={}, api_key="sk-x1")
    assert limits_for(azure(azure_endpoint=AZURE)) == Limits(100_000, 200_000_000)
    assert limits_for(openai_target) == Limits(50_000, 200_000_000, 50_000)


# ---------------------------------------------------------------- clients


@pytest.mark.parametrize("provider", ["azure", "openai"])
@pytest.mark.parametrize(
    "arguments",
    [
        {"azure_endpoint": f"{AZURE}/"},
        {"azure_endpoint": AZURE, "azure_deployment": "d"},
        {"base_url": f"{AZURE}/openai"},
    ],
)
def test_an_azure_client_makes_an_azure_target(provider: str, arguments: dict[str, str]) -> None:
    client = openai.AzureOpenAI(api_key="k1", api_version="2024-10-21", **arguments)  # type: ignore[call-overload]
    target, credentials = resolve_target(provider, "chat_completions", model="m", environ={}, client=client)
    assert target == Target(
        "azure",
        "my-res.openai.azure.com",
        "chat_completions",
        "m",
        {"azure_endpoint": AZURE, "api_version": "2024-10-21"},
    )
    assert (credentials.kind, credentials.client) == ("client", client)
    assert credentials.secrets == ("k1",)
    client.close()


def test_an_openai_client_on_azures_v1_is_an_azure_target() -> None:
    client = openai.OpenAI(api_key="k1", base_url=f"{AZURE}/openai/v1/")
    for provider in ("azure", "openai"):
        target, _ = resolve_target(provider, "responses", environ={}, client=client)
        assert (target.provider, target.settings["api_version"]) == ("azure", "v1")
    client.close()


@pytest.mark.parametrize(
    ("path", "query", "version"),
    [
        ("/openai/v1", {"api-version": "preview"}, "preview"),
        ("/openai/v1", {"api-version": "2024-10-21"}, "v1"),
        ("/openai", {"api-version": "2024-10-21"}, "2024-10-21"),
    ],
)
def test_a_version_in_a_clients_default_query_is_kept_for_restarts(
    path: str, query: dict[str, object], version: str
) -> None:
    client = openai.OpenAI(api_key="k1", base_url=AZURE + path, default_query=query)
    target, _ = resolve_target("azure", "responses", environ={}, client=client)
    assert target.settings == {"azure_endpoint": AZURE, "api_version": version}
    client.close()


def test_an_openai_client_keeps_its_place_and_account() -> None:
    client = openai.OpenAI(api_key="k1", base_url="http://localhost:9/v1", organization="org")
    target, _ = resolve_target("openai", "responses", environ={}, client=client)
    assert target.host == "localhost:9"
    assert target.settings == {"base_url": "http://localhost:9/v1", "organization": "org"}
    client.close()


def test_a_client_that_speaks_to_openai_is_no_azure_client() -> None:
    client = openai.OpenAI(api_key="k1", base_url="https://api.openai.com/v1")
    with pytest.raises(SetupError):
        resolve_target("azure", "responses", environ={}, client=client)
    client.close()


def test_a_client_beside_a_key_or_a_place_is_refused() -> None:
    client = openai.OpenAI(api_key="k1", base_url="http://localhost:9/v1")
    for extra in ({"api_key": "k2"}, {"base_url": "http://localhost:9/v1"}):
        with pytest.raises(SetupError, match=next(iter(extra))):
            resolve_target("openai", "responses", environ={}, client=client, **extra)
    client.close()


@pytest.mark.parametrize(
    "client", [object(), "client", openai.AsyncOpenAI(api_key="k", base_url="http://localhost/")]
)
def test_what_is_no_synchronous_client_is_refused(client: object) -> None:
    with pytest.raises(SetupError):
        resolve_target("openai", "responses", environ={}, client=client)


def test_a_clients_plain_http_needs_consent() -> None:
    client = openai.OpenAI(api_key="k1", base_url="http://example.com/v1")
    with pytest.raises(SetupError):
        resolve_target("openai", "responses", environ={}, client=client)
    client.close()


# ---------------------------------------------------------------- identity, restarts


def test_version_slash_and_credentials_do_not_change_the_target() -> None:
    def identity(target: Target) -> tuple[object, ...]:
        return target.provider, target.host, target.model, target.kind

    one = azure(azure_endpoint=AZURE, api_version="v1", deployment="d")
    other = azure(azure_endpoint=f"{AZURE}/openai/", api_version="2024-10-21", model="d", api_key="other")
    assert identity(one) == identity(other)


def test_settings_hold_no_secret() -> None:
    target, _ = resolve_target(
        "azure",
        "responses",
        environ={},
        azure_endpoint=AZURE,
        tenant_id="t",
        client_id="c",
        client_secret="hush-hush",
        azure_scope="https://ai.azure.com/.default",
    )
    assert "hush-hush" not in repr(target)
    assert target.settings.items() >= {"tenant_id": "t", "client_id": "c"}.items()


def test_a_restart_needs_the_secret_only() -> None:
    target, first = resolve_target(
        "azure",
        "responses",
        environ={},
        azure_endpoint=AZURE,
        tenant_id="t",
        client_id="c",
        client_secret="hush-hush",
        azure_scope="https://ai.azure.com/.default",
    )
    again = reopen_target(
        target, {"AZURE_CLIENT_SECRET": "hush-hush", "AZURE_API_KEY": "of another resource"}
    )
    assert again == first


def test_a_restart_without_that_secret_takes_what_there_is() -> None:
    target, _ = resolve_target(
        "azure",
        "responses",
        environ={},
        azure_endpoint=AZURE,
        tenant_id="t",
        client_id="c",
        client_secret="hush",
    )
    assert reopen_target(target, {"AZURE_API_KEY": "key-1"}).api_key == "key-1"
    assert reopen_target(target, {}, api_key="key-2").api_key == "key-2"
    assert reopen_target(target, {}).kind == "default"


def test_a_restart_of_a_clients_job_finds_a_key() -> None:
    client = openai.AzureOpenAI(api_key="k1", api_version="2024-10-21", azure_endpoint=AZURE)
    target, first = resolve_target("azure", "responses", environ={}, client=client)
    again = reopen_target(target, {"AZURE_API_KEY": "key-1"})
    assert again.kind == "key"
    provider = open_provider(target, again)
    assert provider.name == "azure"
    provider.close()
    assert reopen_target(target, {}, client=client) == first
    client.close()


def test_a_client_of_another_resource_cannot_reopen_a_job() -> None:
    client = openai.AzureOpenAI(
        api_key="k1", api_version="2024-10-21", azure_endpoint="https://other.openai.azure.com"
    )
    with pytest.raises(SetupError, match=r"other\.openai"):
        reopen_target(azure(azure_endpoint=AZURE), {}, client=client)
    client.close()
