"""What is wrong with this machine, this configuration or this endpoint, and how to mend it.

Reads, and asks the service two cheap questions (a page of batches, the list of files); only the canary makes
anything, and takes it away again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from langbatch.clock import Clock
from langbatch.config.resolving import resolve_targets, target_warnings
from langbatch.config.settings import Settings
from langbatch.error_codes import explain
from langbatch.errors import (
    AccessRefused,
    FateUnknown,
    LangBatchError,
    ProviderError,
    RemoteNotFound,
    SetupError,
    Throttled,
    Unreachable,
)
from langbatch.providers import open_provider
from langbatch.providers.base import Provider
from langbatch.providers.credentials import Credentials
from langbatch.providers.endpoints import azure_knows_expiry, is_loopback
from langbatch.records import EndpointKind, RemoteFile, Target
from langbatch.running.reconcile import walk_files
from langbatch.upkeep import surroundings
from langbatch.upkeep.endpoint import EndpointFacts, keep_facts
from langbatch.upkeep.findings import Diagnosis, Finding, fine, of_error, problem, warning

if TYPE_CHECKING:
    from langbatch.profiles import Profile
    from langbatch.store.examination import Examined
    from langbatch.store.store import JobStore

#: Remote times are corrected by the reply's `Date`, which counts whole seconds; tokens are not so patient.
SKEW_SECONDS = 60.0
#: What an Azure resource holds: input files without expiry, and with it (wire reference, 2).
_FILES_WITHOUT_EXPIRY, _FILES_WITH_EXPIRY = 500, 10_000
_MANY = 0.8

#: Our files' names begin with the id of the store that sent them.
OWN_FILE = re.compile(r"lb-([0-9a-f]{8})-")

_KEYS = ("AZURE_API_KEY", "AZURE_OPENAI_API_KEY")
_TOKENS = ("AZURE_AD_TOKEN", "AZURE_OPENAI_AD_TOKEN")
_ENDPOINTS = ("AZURE_API_BASE", "AZURE_OPENAI_ENDPOINT")
_VERSIONS = ("AZURE_API_VERSION", "OPENAI_API_VERSION")


@dataclass(frozen=True, slots=True)
class Examination:
    """One visit. `open_store` is called only for the canary, whose facts are kept."""

    settings: Settings
    clock: Clock
    open_store: Callable[[], JobStore]
    environ: Mapping[str, str] = field(default_factory=lambda: os.environ)
    #: Names the targets, where there is one.
    profile: Profile | None = None

    def examine(
        self,
        provider: str,
        *,
        kind: EndpointKind = "chat_completions",
        model: str | None = None,
        canary: bool = False,
        **arguments: Any,
    ) -> Diagnosis:
        """Everything that can be found out, in the order in which it should be mended."""
        findings: list[Finding] = []
        targets: list[tuple[Target, Credentials]] = []
        try:
            targets = resolve_targets(
                provider, kind, model=model, profile=self.profile, environ=self.environ, **arguments
            )
        except SetupError as error:
            findings.append(of_error("configuration", error))
        for target, credentials in targets:
            how = credentials.kind.replace("_", " ")
            findings.append(fine("configuration", f"{target.label}, signing in with: {how}"))
        azure: list[Target | None] = [target for target, _ in targets if target.provider == "azure"]
        if not targets and provider == "azure":
            azure = [None]
        for known in azure:
            findings += check_azure_settings(self.environ, arguments, known)
        findings += surroundings.check_home(self.settings)
        database, examined = surroundings.check_database(self.settings)
        findings.append(database)
        if examined is not None and examined.jobs:
            for target, _ in targets:
                findings += self._deployments(target)
        usual = Settings.load(environ={}).home
        findings += surroundings.check_other_stores(self.settings, self.environ, usual)
        facts = None
        may_measure = canary and database.level != "problem"
        for target, credentials in targets:
            findings += surroundings.check_proxies(self.environ, target.host, is_loopback(target.host))
            opened = open_provider(target, credentials)
            try:
                answered = list(self._service(opened, target, credentials, examined))
                findings += answered
                if may_measure and all(finding.level != "problem" for finding in answered):
                    measured, found = self._canary(opened, target)
                    facts = facts or measured
                    findings += found
            finally:
                opened.close()
        # Targets of one resource, or of one environment, share what is wrong with it.
        return Diagnosis(tuple(dict.fromkeys(findings)), facts)

    def _deployments(self, target: Target) -> Iterator[Finding]:
        """What became of the last batch of each deployment there: nothing else tells whether it takes any."""
        from langbatch.store import refusals

        prefix = "/".join(filter(None, (target.provider, target.host, target.model)))
        for refused in refusals.newest(self.open_store(), prefix):
            if target.model is not None and refused.label != prefix:
                continue
            name = refused.label.rpartition("/")[2]
            known = explain(refused.code)
            mend = known.remedy if known else "Compare its name and type with the portal's Deployments page."
            what = f"{name} refused its last batch: {refused.code}: {refused.message}"
            yield warning("deployment", what, mend)

    # ------------------------------------------------------------ the service

    def _service(
        self, provider: Provider, target: Target, credentials: Credentials, examined: Examined | None
    ) -> Iterator[Finding]:
        before = self.clock.now()
        try:
            page = provider.list_batches()
        except ProviderError as error:
            yield explain_refusal(error, target, credentials)
            return
        after = self.clock.now()
        yield fine("sign_in", f"{target.host} answers and lets us in")
        if page.server_time is not None:
            yield check_clock(page.server_time, before, after)
        try:
            files, complete = walk_files(provider.list_files)
        except ProviderError as error:
            yield warning("files", f"files cannot be listed: {error.message}", "Jobs can run without.")
            return
        yield check_file_count(files, complete, target)
        if examined is not None:
            yield from check_foreign_files(files, examined.store_id, examined.jobs)

    def _canary(self, provider: Provider, target: Target) -> tuple[EndpointFacts | None, list[Finding]]:
        from langbatch.upkeep.canary import run_canary

        if target.provider == "azure" and target.model is None:
            mend = "Name a batch deployment: --deployment NAME."
            return None, [problem("canary", "the canary needs a deployment to be sent to", mend)]
        try:
            store = self.open_store()
            facts = run_canary(provider, target, store.store_id, self.clock)
            keep_facts(store, target, facts)
        except LangBatchError as error:
            known = explain(error.code)
            mend = error.hint or (known.remedy if known else "Nothing of it is left. Run it again later.")
            return None, [problem("canary", f"the canary came to nothing: {error.message}", mend)]
        return facts, list(explain_facts(facts))


def check_azure_settings(
    environ: Mapping[str, str], arguments: Mapping[str, Any], target: Target | None
) -> Iterator[Finding]:
    """What works, or nearly works, but is hardly meant."""
    for text in target_warnings(target) if target else ():
        yield warning("api_version", text, "Set AZURE_API_VERSION to 2024-10-21 or v1.")
    endpoint = next(
        (str(arguments[name]) for name in ("azure_endpoint", "base_url") if arguments.get(name)),
        next((environ[name] for name in _ENDPOINTS if environ.get(name)), ""),
    )
    pasted = re.search(r"/deployments/([^/?#]+)", endpoint)
    if pasted:
        what = "the endpoint holds a deployment's path; batches live beside it, so that it is left out"
        mend = f"Give the resource's own address, and --deployment {pasted[1][:60]}."
        yield warning("endpoint", what, mend)
    if target is not None and target.host.endswith(".api.cognitive.microsoft.com"):
        mend = "Use https://NAME.openai.azure.com; without its own subdomain a resource's batches fail."
        yield warning("endpoint", f"{target.host} is a region's address, not a resource's", mend)
    for first, second in (_KEYS, _TOKENS, _ENDPOINTS, _VERSIONS):
        if environ.get(first) and environ.get(second) and environ[first].strip() != environ[second].strip():
            mend = f"Unset {second}, or set both to the same."
            yield warning("configuration", f"{first} and {second} differ; {first} is used", mend)
    key = next((name for name in _KEYS if environ.get(name)), None)
    token = next((name for name in _TOKENS if environ.get(name)), None)
    if key and token:
        yield warning(
            "credentials", f"{key} and {token} are both set; the key is used", "Unset the one not meant."
        )
    if not any(arguments.get(name) for name in ("api_version", "base_url")) and not any(
        environ.get(name) for name in _VERSIONS
    ):
        yield fine("api_version", "none is set: v1 is used")


def explain_refusal(error: ProviderError, target: Target, credentials: Credentials) -> Finding:
    """Why the first call failed, and what to do about it."""
    if isinstance(error, AccessRefused):
        return problem("sign_in", error.message, _how_to_get_in(error, credentials))
    match error:
        case Unreachable():
            mend = _how_to_get_there(error, target)
        case RemoteNotFound():
            version = target.settings.get("api_version")
            used = f" (now {version})" if version else ""
            mend = (
                f"This address has no /batches: check the endpoint, and the api-version{used}: batch needs "
                "2024-07-01-preview or later, or v1."
            )
        case _ if error.status == 407 or "HTML" in error.message:
            mend = (
                f"Something on the way answers in {target.host}'s place, a proxy or a sign-in page: name the "
                "host in NO_PROXY, set HTTPS_PROXY to the right proxy, or sign in to the network."
            )
        case Throttled():
            mend = "The service asks to slow down: wait a moment, then run this again."
        case FateUnknown():
            mend = "The service or something before it is in trouble: run this again later."
        case _:
            mend = "Check endpoint, api-version and deployment."
    # What the service's own word cannot say: which api-version was used, and who answered in its place.
    ours = isinstance(error, RemoteNotFound | Unreachable)
    return problem("sign_in", error.message, mend if ours else error.hint or mend)


def _how_to_get_there(error: Unreachable, target: Target) -> str:
    """By what the operating system says of a connection that could not be made."""
    text = error.message.lower()
    if "wrong_version_number" in text:
        return "This port speaks no TLS: check it, or write http:// if that is meant."
    if "certificate" in text or "ssl" in text:
        return (
            "The certificate is not trusted: a proxy that opens connections needs its authority's file in "
            "SSL_CERT_FILE; or the clock is off."
        )
    if "name or service" in text or "nodename" in text or "getaddrinfo" in text or "resolution" in text:
        return (
            f"There is no host {target.host}: check the endpoint's spelling (https://NAME.openai.azure.com, "
            "from the portal's Keys and Endpoint page), the network, and proxy variables."
        )
    if "proxy" in text:
        return "The proxy does not take the connection: check HTTPS_PROXY, or name the host in NO_PROXY."
    if "refused" in text:
        return "Nobody listens at this address and port: check the endpoint, a local service, or the proxy."
    return "Check the endpoint's spelling, the network, and proxy variables."


def _how_to_get_in(error: AccessRefused, credentials: Credentials) -> str:
    """By the bodies that services send (wire reference, 6)."""
    text = error.message.lower()
    if error.status is None:
        return error.hint or "Sign in: az login, a managed identity, or AZURE_API_KEY."
    if "audience" in text or "access token is missing" in text:
        if credentials.kind == "token":
            return (
                "The token in AZURE_AD_TOKEN has expired (they last about an hour) or is meant for another "
                "service: fetch a new one, or better sign in with `az login` or a client secret."
            )
        if credentials.kind == "key":
            return "A key was taken for a token: give it as AZURE_API_KEY, not inside a client of your own."
        return (
            f"The token is for {credentials.scope}: set AZURE_SCOPE to "
            "https://cognitiveservices.azure.com/.default or https://ai.azure.com/.default, whichever this "
            "resource takes, and see that the identity is of its tenant."
        )
    if "permissiondenied" in text or "principal does not have access" in text:
        return (
            "Signed in, but without the right: give this identity the role Cognitive Services OpenAI User "
            "on the resource; a new assignment may take five minutes."
        )
    if "key based authentication" in text or "key authentication" in text:
        return (
            "The resource takes no keys: unset AZURE_API_KEY and AZURE_OPENAI_API_KEY and sign in with Entra "
            "ID (az login, a managed identity, a client secret)."
        )
    if "virtual network" in text or "firewall" in text:
        return "The resource's network rules keep this machine out: add its address, or run inside."
    if "subscription key" in text or "api key" in text:
        return (
            "The key does not belong to this endpoint, or was renewed: compare it with the portal's Keys and "
            "Endpoint, and see that endpoint and key are of the same resource."
        )
    return error.hint or "Check the key or token, and that it belongs to this endpoint."


def check_clock(server_time: float, before: float, after: float) -> Finding:
    """This machine's clock against the `Date` of a reply that came between two looks at it."""
    ahead = before - server_time - 1 if server_time + 1 < before else min(0.0, after - server_time)
    if abs(ahead) <= SKEW_SECONDS:
        return fine("clock", "this machine's clock agrees with the service's")
    way = "ahead of" if ahead > 0 else "behind"
    mend = "Set the clock (timedatectl set-ntp true): sign-in tokens are refused when clocks differ."
    return warning("clock", f"this machine's clock is {abs(ahead):,.0f} s {way} the service's", mend)


def check_file_count(files: list[RemoteFile], complete: bool, target: Target) -> Finding:
    """How near the resource is to its limit of input files; OpenAI has none."""
    count = len(files)
    said = f"{'' if complete else 'at least '}{count:,} input files"
    if target.provider != "azure":
        return fine("files", f"{said} at the service")
    limit = _FILES_WITH_EXPIRY if azure_knows_expiry(target.settings) else _FILES_WITHOUT_EXPIRY
    said = f"{said} of {limit:,} on the resource"
    mend = "`langbatch gc` deletes those of our finished jobs."
    if limit == _FILES_WITHOUT_EXPIRY:
        mend += " From api-version 2025-03-01-preview on, or with v1, 10,000 files fit."
    if count >= limit:
        return problem("files", said, mend)
    return warning("files", said, mend) if count >= _MANY * limit else fine("files", said)


def check_foreign_files(files: list[RemoteFile], store_id: str | None, jobs: int) -> Iterator[Finding]:
    """Files of other stores are left alone; beside an empty store they may be what is left of this one."""
    found: dict[str, int] = {}
    for file in files:
        name = OWN_FILE.match(file.filename or "")
        if name and name[1] != store_id:
            found[name[1]] = found.get(name[1], 0) + 1
    if not found:
        return
    said = ", ".join(f"{store} ({count})" for store, count in sorted(found.items())[:10])
    said = f"files of other langbatch stores are on this resource: {said}"
    if jobs:
        yield fine("other_stores", f"{said}; they are never touched")
    else:
        mend = "If this store's database was lost: `langbatch recover --from-remote` brings its jobs back."
        yield warning("other_stores", f"{said}, while this store is empty", mend)


def explain_facts(facts: EndpointFacts) -> Iterator[Finding]:
    """What the canary's measurements mean for a reply that gets lost."""
    if facts.fence_holds is None:
        yield warning("canary_fence", "whether the fence holds could not be found out", "Run it again later.")
    elif facts.fence_holds:
        yield fine("canary_fence", "a create is refused once its input file is deleted: the fence holds")
    else:
        mend = "After a lost reply, a shard whose batch cannot be found will ask you (`langbatch reconcile`)."
        yield warning("canary_fence", "a batch was created from a deleted file: no fence here", mend)
    mend = "After a lost reply, a batch may be found late; the long grace period covers that."
    if facts.list_lag_seconds is None:
        yield warning("canary_list", "a new batch was not listed while the canary waited", mend)
    else:
        yield fine("canary_list", f"a new batch is listed after {facts.list_lag_seconds:.0f} s")
    if facts.list_complete is False:
        mend = "After a lost reply, a shard whose batch is not found will ask you (`langbatch reconcile`)."
        yield warning("canary_list", "the list of batches cannot be read to its end", mend)
    if facts.input_file_id_listed is False and facts.metadata_listed is False:
        mend = "After a lost reply, every shard will ask you (`langbatch reconcile`)."
        yield warning("canary_echo", "listed batches show neither their input file nor metadata", mend)
    elif facts.input_file_id_listed is False:
        mend = "Batches are recognised by their metadata here."
        yield warning("canary_echo", "listed batches do not show their input file", mend)
    elif facts.metadata_listed is False:
        mend = (
            "Batches are recognised by their input file here; `recover` finds only those whose file is left."
        )
        yield warning("canary_echo", "listed batches do not show their metadata", mend)
    elif facts.metadata_listed:
        yield fine("canary_echo", "listed batches show their input file and metadata")
