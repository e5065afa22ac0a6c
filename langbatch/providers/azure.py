"""What Azure does differently: two families of URLs, key or Entra token, files that must be waited for."""

from __future__ import annotations

from typing import Any

from langbatch.providers.credentials import Access, Credentials
from langbatch.providers.endpoints import (
    azure_base_url,
    azure_batch_endpoint,
    azure_knows_expiry,
    azure_query,
    azure_version,
    version_date,
)
from langbatch.providers.exchange import Exchange
from langbatch.providers.limits import AZURE_LIMITS
from langbatch.providers.openai import FilesAndBatches, Service, plain_client, quiet_transport
from langbatch.records import Target


def open_provider(target: Target, credentials: Credentials) -> FilesAndBatches:
    """A provider for an Azure resource, dated or v1."""
    settings = target.settings
    service = Service(
        name="azure",
        limits=AZURE_LIMITS,
        waits_for_file=True,  # a batch on a file that is not `processed` fails (openai-dotnet#312)
        endpoint=azure_batch_endpoint(target.kind, settings),
        knows_expiry=azure_knows_expiry(settings),
    )
    access = Access(credentials, key_header="api-key")
    if credentials.kind == "client":
        return FilesAndBatches(
            service, Exchange(credentials.client, access, host=target.host, owns_client=False)
        )
    headers = {
        # Left to itself, the SDK would send OpenAI's account ids from the environment to Azure.
        "OpenAI-Organization": settings.get("organization"),
        "OpenAI-Project": settings.get("project"),
    }
    return FilesAndBatches(service, Exchange(_client(target), access, host=target.host, headers=headers))


def _client(target: Target) -> Any:
    settings = target.settings
    base_url = azure_base_url(settings)
    version = azure_version(settings)
    if version_date(version) is None:
        # `AzureOpenAI` builds wrong paths under /openai/v1 (wire reference, 1).
        return plain_client(base_url, azure_query(settings))
    import openai

    return openai.AzureOpenAI(
        base_url=base_url,
        api_version=version,
        api_key="unused",  # each request brings its key or token
        max_retries=0,
        http_client=quiet_transport(base_url),
    )
