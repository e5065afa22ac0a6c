"""What a person wants of each row: which endpoint, which words, which form of answer."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from langbatch.building.images import ImageFile, find_image
from langbatch.building.strict_schema import add_format, answer_format, with_answer_format
from langbatch.building.template import Template, columns_there_are, text_of
from langbatch.errors import BatchInitializationError
from langbatch.records import ENDPOINT_PATHS, EndpointKind

_MAX_TOKENS_WORDS: Final[Mapping[EndpointKind, str]] = {
    # `max_tokens` is deprecated there, and refused by reasoning models (OpenAI's API reference).
    "chat_completions": "max_completion_tokens",
    "responses": "max_output_tokens",
    "completions": "max_tokens",
}
#: What each row's text becomes; see `Wishes.body`.
_OF_THE_ROWS: Final[Mapping[EndpointKind, tuple[str, ...]]] = {
    "chat_completions": ("messages",),
    "responses": ("input",),
    "completions": ("prompt",),
    "embeddings": ("input",),
}


@dataclass(frozen=True, slots=True)
class Wishes:
    """Everything that is the same for all rows, checked and taken apart once."""

    kind: EndpointKind
    url: str
    prompt: Template
    system: Template | None
    id_column: str | None
    image_column: str | None
    image_folder: Path | None
    common: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        *,
        prompt: str | None = None,
        system: str | None = None,
        model: str | None = None,
        url: str | None = None,
        id_column: str | None = None,
        response_format: Any = None,
        max_tokens: int | None = None,
        image_column: str | None = None,
        image_folder: str | os.PathLike[str] | None = None,
        embed_column: str | None = None,
        settings: Mapping[str, Any] | None = None,
        **body: Any,
    ) -> Wishes:
        """From the keywords of `build_requests`. `BatchInitializationError` for those that contradict
        each other. `settings` go into every body letter by letter, whatever a keyword of that name means."""
        if (prompt is None) is (embed_column is None):
            raise _clash("one of prompt and embed_column is needed: what to send of each row")
        url = url or (ENDPOINT_PATHS["embeddings"] if embed_column else ENDPOINT_PATHS["chat_completions"])
        kind = _kind_of(url)
        if embed_column is not None and kind != "embeddings":
            raise _clash(f"embed_column is for /embeddings, not {url}")
        if system is not None and kind in ("embeddings", "completions"):
            raise _clash(f"{url} has no place for a system text")
        if image_column is not None and kind in ("embeddings", "completions"):
            raise _clash(f"{url} takes no images")
        common: dict[str, Any] = {} if model is None else {"model": model}
        if max_tokens is not None:
            if kind not in _MAX_TOKENS_WORDS:
                raise _clash(f"{url} has no limit of tokens to set")
            common[_MAX_TOKENS_WORDS[kind]] = max_tokens
        common.update(with_answer_format(kind, body))
        if response_format is not None:
            add_format(common, answer_format(kind, response_format))
        for name in settings or {}:
            if name in common or (name == "max_tokens" and max_tokens is not None):
                raise _clash(f"{name} is given twice")
        common.update(settings or {})
        system_text = ("instructions",) if kind == "responses" and system is not None else ()
        for name in (*_OF_THE_ROWS[kind], *system_text):
            if name in common:
                raise _clash(f"{name} is made from each row, and cannot be set for all")
        filled = Template(("", ""), (embed_column,)) if embed_column else Template.parse(prompt or "")
        return cls(
            kind,
            url,
            filled,
            None if system is None else Template.parse(system),
            id_column,
            image_column,
            None if image_folder is None else Path(image_folder),
            common,
        )

    def columns(self) -> Iterator[str]:
        """Every column that a row must have."""
        yield from self.prompt.names
        yield from self.system.names if self.system else ()
        yield from (name for name in (self.id_column, self.image_column) if name is not None)

    def check_columns(self, there: tuple[str, ...]) -> None:
        """Raises `BatchInitializationError` for one that the source does not have."""
        for name in self.columns():
            if name not in there:
                raise BatchInitializationError(
                    f"there is no column {name!r}",
                    hint=columns_there_are(there)
                    # JSON in a prompt looks like this.
                    + ("; {{ and }} stand for braces" if '"' in name or ":" in name else ""),
                    code="missing_column",
                )

    def image(self, row: Mapping[str, Any], folder: Path) -> str | ImageFile | None:
        """The row's image; an empty cell is none. Raises `RowFault`."""
        if self.image_column is None or row.get(self.image_column, "") in (None, ""):
            return None
        return find_image(text_of(row, self.image_column), self.image_folder or folder)

    def body(self, prompt: str, system: str | None, image_url: str | None) -> dict[str, Any]:
        """A request's body; shapes as in the services' API references."""
        match self.kind:
            case "chat_completions":
                content: Any = prompt
                if image_url is not None:
                    content = [
                        {"type": "text", "text": prompt},
                        {"type": "image_url", "image_url": {"url": image_url}},
                    ]
                lead = [] if system is None else [{"role": "system", "content": system}]
                return {**self.common, "messages": [*lead, {"role": "user", "content": content}]}
            case "responses":
                said: Any = prompt
                if image_url is not None:
                    parts = [
                        {"type": "input_text", "text": prompt},
                        {"type": "input_image", "image_url": image_url},
                    ]
                    said = [{"role": "user", "content": parts}]
                first = {} if system is None else {"instructions": system}
                return {**self.common, **first, "input": said}
            case "embeddings":
                return {**self.common, "input": prompt}
            case "completions":
                return {**self.common, "prompt": prompt}


def _kind_of(url: str) -> EndpointKind:
    path = url.removeprefix("/v1")
    for kind, known in ENDPOINT_PATHS.items():
        if path == known:
            return kind
    raise _clash(f"{url!r} is no endpoint for batches", hint=f"One of {', '.join(ENDPOINT_PATHS.values())}.")


def _clash(message: str, hint: str | None = None) -> BatchInitializationError:
    return BatchInitializationError(message, hint=hint, code="wishes")
