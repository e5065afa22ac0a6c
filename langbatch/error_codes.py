"""The codes that services and langbatch give to what went wrong, in words: what each means, what to do.

Facts are the wire reference's: its sections 3 to 6 (batch, validation, rows, HTTP). Codes are compared
without case and punctuation, since services spell them both ways: `contentFilter`, `content_filter`.
"""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Literal

#: What a code is about: one request's result, a whole batch, one call to the service, a finished answer.
About = Literal["request", "batch", "call"]
#: `by itself`: langbatch tries again without being asked. `worth it`: `langbatch retry` may well succeed.
#: `after mending`: only once its cause is away. `useless`: the same request ends the same way.
Retry = Literal["by itself", "worth it", "after mending", "useless"]


@dataclass(frozen=True, slots=True)
class Explanation:
    """One code. `remedy` is a sentence that says what to do; `retry` says what sending again would bring."""

    code: str
    about: About
    meaning: str
    remedy: str
    retry: Retry

    def to_dict(self) -> dict[str, Any]:
        """The JSON document, ready for `json.dumps`."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class FailureCount:
    """How many requests of a job ended without success for one reason."""

    code: str
    outcome: str
    requests: int

    @property
    def explanation(self) -> Explanation | None:
        """What the code means; None for a code that nobody documented."""
        return explain(self.code)

    def to_dict(self) -> dict[str, Any]:
        """The JSON document: the count, and in words what it is about."""
        known = self.explanation
        return {
            **asdict(self),
            "meaning": known.meaning if known else None,
            "remedy": known.remedy if known else None,
        }


def explain(code: str) -> Explanation | None:
    """What a code means: a service's, langbatch's own, or an HTTP status; None where it is not known."""
    found = _BY_KEY.get(_key(code))
    if found is not None:
        return found
    status = re.fullmatch(r"(?:http)?([1-5]\d\d)", _key(code))
    if status is None:
        return None
    return _BY_KEY.get(f"http{status[1]}") or _BY_KEY.get(status[1]) or _of_class(int(status[1]))


def explanations() -> tuple[Explanation, ...]:
    """Every code that is known, by what it is about."""
    return _ALL


def _key(code: str) -> str:
    return re.sub(r"[^a-z0-9]", "", code.lower())


_RETRY = "langbatch retry JOB"


def _entry(code: str, about: About, retry: Retry, meaning: str, remedy: str) -> Explanation:
    return Explanation(code, about, meaning, remedy, retry)


def _of_class(status: int) -> Explanation:
    """A status that has no entry of its own: its first digit says whose fault it is."""
    code = f"http_{status}"
    if status >= 500:
        return _entry(code, "request", "worth it", "The service failed.", f"Send it again: {_RETRY}.")
    if status >= 400:
        remedy = "Read the row's error.message, change the request, and submit it in a new file."
        return _entry(code, "request", "useless", "The service refused the request.", remedy)
    meaning = "The answer is neither a success nor a refusal."
    return _entry(code, "request", "worth it", meaning, f"Read it, or send it again: {_RETRY}.")


_REQUESTS = (
    _entry(
        "content_filter", "request", "useless",
        "The content filter refused the prompt.",
        "Change the prompt, or ask for another filter on the deployment, and submit those lines anew.",
    ),
    _entry(
        "ResponsibleAIPolicyViolation", "request", "useless",
        "The content filter refused the prompt; the row's innererror says for which category.",
        "Change the prompt, or ask for another filter on the deployment, and submit those lines anew.",
    ),
    _entry(
        "context_length_exceeded", "request", "useless",
        "Prompt and answer together are longer than the model's context.",
        "Shorten the prompt, lower max_tokens, or use a model with a longer context.",
    ),
    _entry(
        "string_above_max_length", "request", "useless",
        "A text in the request is longer than the service allows.",
        "Shorten it or split it, and submit those lines anew.",
    ),
    _entry(
        "invalid_image_url", "request", "useless",
        "The service could not fetch an image that the request names.",
        "See that the URL opens without sign-in, or put the image into the request as a data: URL.",
    ),
    _entry(
        "rate_limit_exceeded", "request", "worth it",
        "The row met a rate limit while the batch ran.",
        f"Send those rows again: {_RETRY}.",
    ),
    _entry(
        "insufficient_quota", "request", "after mending",
        "The account's credit is used up.",
        f"Pay on the account's billing page, then: {_RETRY}.",
    ),
    _entry(
        "server_error", "request", "worth it",
        "The service failed at this request.",
        f"Send those rows again: {_RETRY}.",
    ),
    _entry(
        "InternalServerError", "request", "worth it",
        "The service failed at this request.",
        f"Send those rows again: {_RETRY}.",
    ),
    _entry(
        "unsupported_parameter", "request", "useless",
        "The model does not take one of the request's parameters.",
        "Leave it out, or use the name that the message gives, and submit those lines anew.",
    ),
    _entry(
        "unsupported_value", "request", "useless",
        "The model does not take a parameter's value.",
        "Use a value that the message allows, and submit those lines anew.",
    ),
    _entry(
        "invalid_value", "request", "useless",
        "A parameter has a value that the service does not know.",
        "Use a value that the message allows, and submit those lines anew.",
    ),
    _entry(
        "DeploymentNotFound", "request", "after mending",
        "There is no deployment of that name on this resource, or it is younger than five minutes.",
        "Compare the name with the portal's Deployments page; give the right one with --deployment.",
    ),
    _entry(
        "batch_expired", "request", "worth it",
        "The batch's 24 hours ran out before this request was run; it was not billed.",
        f"Send those rows again: {_RETRY}. Smaller shards or a quieter hour help.",
    ),
    _entry(
        "batch_cancelled", "request", "worth it",
        "The batch was cancelled before this request was run.",
        f"If you still want it: {_RETRY}.",
    ),
    _entry(
        "cancelled", "request", "worth it",
        "The job was cancelled before this request was run.",
        f"If you still want it: {_RETRY}.",
    ),
    _entry(
        "missing", "request", "worth it",
        "The batch ended, and neither of its files says anything about this request.",
        f"Send those rows again: {_RETRY}. It may have been billed: tell the provider.",
    ),
    _entry(
        "unreadable", "request", "worth it",
        "The row came garbled; its raw bytes are in the job's quarantine folder.",
        f"Look at the bytes, or send those rows again: {_RETRY}.",
    ),
    _entry(
        "http_0", "request", "worth it",
        "The service counted the row as done, but gave it the status 0 and no answer.",
        f"Send those rows again: {_RETRY}.",
    ),
    _entry(
        "http_400", "request", "useless",
        "The service found the request itself at fault.",
        "Read the row's error.message, change the request, and submit it in a new file.",
    ),
    _entry(
        "http_408", "request", "worth it",
        "The request took too long.",
        f"Send those rows again: {_RETRY}.",
    ),
    _entry(
        "http_409", "request", "worth it",
        "The request met a conflict within the service.",
        f"Send those rows again: {_RETRY}.",
    ),
    _entry(
        "http_429", "request", "worth it",
        "The row met a rate limit while the batch ran.",
        f"Send those rows again: {_RETRY}.",
    ),
)  # fmt: skip

_BATCHES = (
    _entry(
        "token_limit_exceeded", "batch", "by itself",
        "The deployment's quota of enqueued tokens is full.",
        "Nothing: langbatch waits for room. A larger quota, or a second deployment, makes it faster.",
    ),
    _entry(
        "model_not_found", "batch", "after mending",
        "The deployment (on OpenAI the model) that the lines name does not exist there.",
        "Submit the file again with --deployment NAME (--model NAME on OpenAI), spelled as in the portal.",
    ),
    _entry(
        "model_mismatch", "batch", "after mending",
        "The lines of one batch name different models.",
        "Submit with --split-by-model, or with --deployment NAME to send all lines to one.",
    ),
    _entry(
        "duplicate_custom_id", "batch", "after mending",
        "Two lines have the same custom_id.",
        "Find them with `langbatch validate FILE`, give each line its own, and submit again.",
    ),
    _entry(
        "batch_failed", "batch", "worth it",
        "The service ended the batch without running it, and gave no code.",
        f"`langbatch status JOB` shows what it said; if that names nothing to mend: {_RETRY}.",
    ),
    _entry(
        "empty_file", "batch", "after mending",
        "The input file holds no requests.",
        "Check what wrote the file: `langbatch validate FILE`.",
    ),
    _entry(
        "empty_batch", "batch", "after mending",
        "The input file holds no requests.",
        "Check what wrote the file: `langbatch validate FILE`.",
    ),
    _entry(
        "invalid_json_line", "batch", "after mending",
        "A line is not JSON.",
        "Find it with `langbatch validate FILE`; --skip-invalid sends the others.",
    ),
    _entry(
        "url_mismatch", "batch", "after mending",
        "The lines name different urls, or another than the batch's endpoint.",
        "Give every line the same url, and chat, embedding and responses requests a file each.",
    ),
    _entry(
        "too_many_tasks", "batch", "after mending",
        "The batch holds more requests than the service takes.",
        "Submit with a smaller --max-requests-per-shard.",
    ),
    _entry(
        "invalid_request", "batch", "after mending",
        "A line breaks the request's schema, or the deployment is no batch deployment.",
        "See that the deployment's type is Global-Batch or DataZone-Batch; then `langbatch validate FILE`.",
    ),
    _entry(
        "jsonlValidationFailed", "batch", "after mending",
        "The input file is not JSON lines, or starts with a byte order mark.",
        "Save it as UTF-8 without BOM, one object a line: `langbatch validate FILE`.",
    ),
    _entry(
        "input_modified", "batch", "worth it",
        "The input blob was changed while the batch ran.",
        f"Leave it alone, and send it again: {_RETRY}.",
    ),
    _entry(
        "input_no_permissions", "batch", "after mending",
        "The resource's identity may not read the input blob.",
        "Give it the role Storage Blob Data Contributor on the storage account.",
    ),
    _entry(
        "missing_required_parameter", "batch", "after mending",
        "The service misses a parameter that its message names.",
        "Check the api-version: langbatch doctor.",
    ),
    _entry(
        "invalid_type", "batch", "after mending",
        "A value has the wrong type; the message names it.",
        "Mend the line that it names: `langbatch validate FILE`.",
    ),
)  # fmt: skip

_CALLS = (
    _entry(
        "401", "call", "after mending",
        "The key does not belong to this endpoint, or was renewed.",
        "Compare key and endpoint with the portal's Keys and Endpoint page; then: langbatch resume.",
    ),
    _entry(
        "access_refused", "call", "after mending",
        "The service did not let us in: a token has expired or is for another audience, or a key is wrong.",
        "Sign in again (az login), or set AZURE_SCOPE; langbatch doctor tells which.",
    ),
    _entry(
        "unauthorized", "call", "after mending",
        "The service did not take the key or token.",
        "Check it with: langbatch doctor.",
    ),
    _entry(
        "PermissionDenied", "call", "after mending",
        "Signed in, but the identity lacks the role.",
        "Give it Cognitive Services OpenAI User on the resource; five minutes later: langbatch resume.",
    ),
    _entry(
        "403", "call", "after mending",
        "The resource takes no keys, or its network rules keep this machine out.",
        "Sign in with Entra ID, or add this machine's address; langbatch doctor tells which.",
    ),
    _entry(
        "forbidden", "call", "after mending",
        "The resource takes no keys, or its network rules keep this machine out.",
        "Sign in with Entra ID, or add this machine's address; langbatch doctor tells which.",
    ),
    _entry(
        "invalid_api_key", "call", "after mending",
        "OpenAI does not know the key.",
        "Make a new one on its API keys page, set OPENAI_API_KEY, then: langbatch resume.",
    ),
    _entry(
        "404", "call", "after mending",
        "There is nothing at this address: a wrong endpoint, or an api-version without batch.",
        "Use https://NAME.openai.azure.com and 2024-10-21 or v1; langbatch doctor checks it.",
    ),
    _entry(
        "notFound", "call", "after mending",
        "The service does not know the file or batch (any more).",
        "If it was deleted by hand, `langbatch status JOB` says what langbatch makes of it.",
    ),
    _entry(
        "429", "call", "by itself",
        "Too many calls in a short time.",
        "Nothing: langbatch waits as long as the service asks.",
    ),
    _entry(
        "tooManyRequests", "call", "by itself",
        "Too many calls in a short time.",
        "Nothing: langbatch waits as long as the service asks.",
    ),
    _entry(
        "quotaExceeded", "call", "by itself",
        "The resource holds as many files as it may: 500 without expiry, 10,000 with.",
        "Delete finished jobs' files: langbatch gc. Newer api-versions and v1 let files expire.",
    ),
    _entry(
        "invalidPayload", "call", "after mending",
        "The service does not understand the call; often the api-version is older than batch.",
        "Use api-version 2024-10-21 or v1: langbatch doctor.",
    ),
    _entry(
        "unexpectedEntityState", "call", "by itself",
        "The file or batch is not ready for this yet.",
        "Nothing: langbatch looks again.",
    ),
    _entry(
        "conflict", "call", "by itself",
        "The batch's state does not allow this; a finished batch cannot be cancelled.",
        "Nothing: langbatch looks at the batch again.",
    ),
    _entry(
        "itemDoesAlreadyExist", "call", "by itself",
        "The service has this already.",
        "Nothing: langbatch looks for what exists before it makes anything again.",
    ),
    _entry(
        "fileImportFailed", "call", "worth it",
        "The service could not take in the input file.",
        f"Send it again: {_RETRY}.",
    ),
    _entry(
        "serviceUnavailable", "call", "by itself",
        "The service is in trouble.",
        "Nothing: langbatch goes on when it answers.",
    ),
    _entry(
        "internalFailure", "call", "by itself",
        "The service is in trouble.",
        "Nothing: langbatch goes on when it answers.",
    ),
    _entry(
        "unreachable", "call", "by itself",
        "No connection could be made: network, proxy, or a misspelled endpoint.",
        "Check with langbatch doctor, then go on with: langbatch resume.",
    ),
    _entry(
        "fate_unknown", "call", "by itself",
        "The service did not say whether it did what it was asked to.",
        "Nothing: langbatch looks for the batch before it sends anything again.",
    ),
    _entry(
        "bad_download", "call", "by itself",
        "A results file came cut off, or a web page came in its place.",
        "Nothing: langbatch downloads it again.",
    ),
)  # fmt: skip

_ALL = (*_REQUESTS, *_BATCHES, *_CALLS)
_BY_KEY = {_key(entry.code): entry for entry in _ALL}
