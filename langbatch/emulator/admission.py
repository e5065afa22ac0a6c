"""What a create must look like to be accepted at once (§3). Everything else is found in validation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from langbatch.emulator.profiles import FIRST_BLOB_VERSION, FIRST_EXPIRY_VERSION, PROFILES, Family, at_least
from langbatch.emulator.wire import Refusal, Request

_BODY_BYTES_LIMIT = 1024 * 1024
METADATA_PAIRS = 16
METADATA_KEY_CHARACTERS = 64
METADATA_VALUE_CHARACTERS = 512


@dataclass(frozen=True, slots=True)
class Asked:
    """A create whose form is in order. Exactly one of `input_file_id` and `input_blob` is set."""

    endpoint: str
    completion_window: str
    metadata: dict[str, str] | None
    input_file_id: str | None
    input_blob: str | None
    output_folder: str | None
    output_expires: Mapping[str, Any] | None


def read_json(request: Request) -> dict[str, Any]:
    whole = bytearray()
    for block in request.body:
        whole += block
        if len(whole) > _BODY_BYTES_LIMIT:
            raise Refusal(400, "invalidPayload", "The request body is too large.")
    try:
        body = msgspec.json.decode(bytes(whole) or b"{}")
    except msgspec.DecodeError:
        body = None
    if not isinstance(body, dict):
        raise Refusal(400, "invalidPayload", "The request body must be a JSON object.")
    return body


def read_create(family: Family, version: str | None, body: Mapping[str, Any]) -> Asked:
    """Refuses what the service refuses at once; the codes are OpenAI's, Azure's own where known."""
    blob = body.get("input_blob") if family == "azure" and at_least(version, FIRST_BLOB_VERSION) else None
    required = (
        ("endpoint", "completion_window") if blob else ("input_file_id", "endpoint", "completion_window")
    )
    for name in required:
        value = body.get(name)
        if value is None:
            message = f"Missing required parameter: '{name}'."
            raise Refusal(400, _code(family, "missing_required_parameter"), message, param=name)
        if not isinstance(value, str):
            message = f"Invalid type for '{name}': expected a string."
            raise Refusal(400, _code(family, "invalid_type"), message, param=name)
    if body["endpoint"] not in PROFILES[family].endpoints:
        message = f"Invalid value: '{body['endpoint'][:80]}' is not a supported endpoint."
        raise Refusal(400, _code(family, "invalid_value"), message, param="endpoint")
    if family == "openai" and body["completion_window"] != "24h":
        message = "Invalid value: completion_window must be '24h'."
        raise Refusal(400, "invalid_value", message, param="completion_window")
    folder = body.get("output_folder")
    expires = body.get("output_expires_after") if at_least(version, FIRST_EXPIRY_VERSION) else None
    return Asked(
        endpoint=body["endpoint"],
        completion_window=body["completion_window"],
        metadata=None if blob else _metadata(family, body.get("metadata")),
        input_file_id=None if blob else body["input_file_id"],
        input_blob=blob,
        output_folder=str(folder.get("url")) if isinstance(folder, dict) else None,
        output_expires=expires if isinstance(expires, dict) else None,
    )


def _code(family: Family, openai_code: str) -> str:
    return openai_code if family == "openai" else "invalidPayload"


def _metadata(family: Family, metadata: Any) -> dict[str, str] | None:
    if metadata is None:
        return None
    if not isinstance(metadata, dict):
        raise Refusal(400, _code(family, "invalid_type"), "metadata must be an object.", param="metadata")
    if len(metadata) > METADATA_PAIRS:
        message = f"metadata may hold at most {METADATA_PAIRS} pairs."
        raise Refusal(400, _code(family, "object_above_max_properties"), message, param="metadata")
    for key, value in metadata.items():
        if not isinstance(value, str):
            message = f"Invalid type for 'metadata.{key[:64]}': expected a string."
            raise Refusal(400, _code(family, "invalid_type"), message, param=f"metadata.{key[:64]}")
        if len(key) > METADATA_KEY_CHARACTERS or len(value) > METADATA_VALUE_CHARACTERS:
            message = "A key or value of metadata is too long."
            raise Refusal(400, _code(family, "string_above_max_length"), message, param="metadata")
    return dict(metadata)
