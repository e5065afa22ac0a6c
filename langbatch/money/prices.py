"""Prices from dated files that users can see and override, and which model a deployment runs.

`prices.toml` beside this module is the shipped list; `<home>/prices.toml` has the same form and comes first.
All figures are decimals: money is not counted in binary fractions.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

from langbatch.errors import SetupError

FILE_NAME: Final = "prices.toml"
SHIPPED: Final = Path(__file__).with_name(FILE_NAME)

_DATED = re.compile(r"(.+)-\d{4}-\d{2}-\d{2}")
_TABLES: Final = frozenset({"source", "batch", "deployments", "models"})
_MODEL_KEYS: Final = frozenset(
    {"input", "cached_input", "output", "batch_discount", "most_output_tokens", "also"}
)


@dataclass(frozen=True, slots=True)
class Price:
    """Of one model family, for `per_tokens` tokens, before the batch discount (0.5 is half off).

    `output` None: the model writes none. `cached_input` None: as other input.
    """

    family: str
    input: Decimal
    output: Decimal | None = None
    cached_input: Decimal | None = None
    batch_discount: Decimal = Decimal("0.5")
    most_output_tokens: int | None = None
    per_tokens: int = 1_000_000
    currency: str = "USD"
    #: The date whose prices these are, and where they are from.
    as_of: date | None = None
    source: str = ""


@dataclass(frozen=True, slots=True)
class PriceList:
    """Looks names up; later lists are asked where earlier ones know nothing."""

    models: Mapping[str, Price] = field(default_factory=dict)
    deployments: Mapping[str, str] = field(default_factory=dict)
    #: Where the user's own file is read from, there or not.
    own_file: Path | None = field(default=None, compare=False)

    @property
    def has_own_file(self) -> bool:
        return self.own_file is not None and self.own_file.exists()

    @property
    def shipped_file(self) -> Path:
        return SHIPPED

    def over(self, other: PriceList) -> PriceList:
        """This list, and `other` for whatever this one does not name."""
        models = {**other.models, **self.models}
        return PriceList(models, {**other.deployments, **self.deployments}, self.own_file)

    def with_deployments(self, deployments: Mapping[str, str]) -> PriceList:
        """The same prices, and more deployments; those already named stay as they are."""
        return PriceList(self.models, {**deployments, **self.deployments}, self.own_file)

    def model_of(self, name: str, *, learnt: Mapping[str, str] | None = None, is_model: bool) -> str | None:
        """The model behind a deployment's or model's name; None where nobody has said.

        The user's mapping beats what answers have shown (`learnt`, deployment → the answer's `model`).
        `is_model`: the service takes models' names, as OpenAI does; on Azure a name alone proves nothing.
        """
        named = self.deployments.get(name)
        if named is None and learnt is not None:
            named = learnt.get(name)
        return name if named is None and is_model else named

    def price_of(self, model: str | None) -> Price | None:
        """None: unknown. `gpt-4o-2024-08-06` is found by its own name or as `gpt-4o`."""
        if model is None:
            return None
        found = self.models.get(model)
        if found is None and (dated := _DATED.fullmatch(model)):
            found = self.models.get(dated[1])
        return found

    def most_output_tokens(self, model: str) -> int | None:
        """The longest answer the model writes, where the list says so."""
        price = self.price_of(model)
        if price is None:
            return None
        return 0 if price.output is None else price.most_output_tokens


def read_prices(home: Path | None = None) -> PriceList:
    """The shipped list, under the user's `<home>/prices.toml` where there is one.

    Raises `SetupError` for a file that cannot be read: a wrong price must not pass unseen.
    """
    shipped = read_price_file(SHIPPED)
    own = home / FILE_NAME if home is not None else None
    if own is None or not own.exists():
        return replace(shipped, own_file=own)
    return replace(read_price_file(own).over(shipped), own_file=own)


def read_price_file(path: Path) -> PriceList:
    """Raises `SetupError` that names the place."""
    try:
        with path.open("rb") as file:
            document = tomllib.load(file, parse_float=Decimal)
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise _bad(path, str(error)) from error
    _refuse_unknown(path, "the file", document, _TABLES)
    for name in _TABLES & document.keys():
        if not isinstance(document[name], dict):
            raise _bad(path, f"{name} must be a table")
    source = document.get("source", {})
    batch = document.get("batch", {})
    _refuse_unknown(path, "[source]", source, {"currency", "per_tokens", "as_of", "note"})
    _refuse_unknown(path, "[batch]", batch, {"discount"})
    as_of = source.get("as_of")
    if as_of is not None and not isinstance(as_of, date):
        raise _bad(path, "source.as_of must be a date, like 2025-08-31")
    per_tokens = source.get("per_tokens", 1_000_000)
    if not isinstance(per_tokens, int) or isinstance(per_tokens, bool) or per_tokens < 1:
        raise _bad(path, "source.per_tokens must be a whole number above 0")
    discount = _amount(path, "batch.discount", batch.get("discount", Decimal("0.5")))
    deployments = document.get("deployments", {})
    for name, model in deployments.items():
        if not isinstance(model, str):
            raise _bad(path, f"deployments.{name} must be a model's name in quotes")
    models: dict[str, Price] = {}
    for name, entry in document.get("models", {}).items():
        price = _price(path, name, entry, source, discount, as_of, per_tokens)
        also = entry.get("also", [])
        if not isinstance(also, list) or not all(isinstance(each, str) for each in also):
            raise _bad(path, f"models.{name}.also must be a list of names")
        models |= dict.fromkeys([*also, name], price)
    return PriceList(models, deployments)


def _price(
    path: Path,
    name: str,
    entry: Any,
    source: Mapping[str, Any],
    discount: Decimal,
    as_of: date | None,
    per_tokens: int,
) -> Price:
    where = f"models.{name}"
    if not isinstance(entry, dict):
        raise _bad(path, f"{where} must be a table")
    if nested := [key for key, value in entry.items() if isinstance(value, dict)]:
        raise _bad(path, f'a name with a dot needs quotes: [models."{name}.{nested[0]}"]')
    _refuse_unknown(path, f"[{where}]", entry, _MODEL_KEYS)
    if "input" not in entry:
        raise _bad(path, f"{where}.input is missing")
    amounts = {
        key: _amount(path, f"{where}.{key}", entry[key])
        for key in ("input", "cached_input", "output", "batch_discount")
        if key in entry
    }
    own_discount = amounts.pop("batch_discount", discount)
    if own_discount > 1:
        raise _bad(path, f"{where}: a discount is a share, like 0.5")
    most = entry.get("most_output_tokens")
    if most is not None and (not isinstance(most, int) or isinstance(most, bool) or most < 0):
        raise _bad(path, f"{where}.most_output_tokens must be a whole number")
    return Price(
        family=name,
        input=amounts["input"],
        output=amounts.get("output"),
        cached_input=amounts.get("cached_input"),
        batch_discount=own_discount,
        most_output_tokens=most,
        per_tokens=per_tokens,
        currency=str(source.get("currency", "USD")),
        as_of=as_of,
        source=str(source.get("note", "")),
    )


def _amount(path: Path, where: str, value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | Decimal):
        raise _bad(path, f"{where} must be a number")
    amount = Decimal(value)
    if not amount.is_finite() or amount < 0:
        raise _bad(path, f"{where} must not be below 0")
    return amount


def _refuse_unknown(
    path: Path, where: str, table: Mapping[str, Any], known: frozenset[str] | set[str]
) -> None:
    unknown = sorted(table.keys() - known)
    if unknown:
        raise _bad(path, f"{where} has an unknown key {unknown[0]!r}; known: {', '.join(sorted(known))}")


def _bad(path: Path, what: str) -> SetupError:
    return SetupError(
        f"the price file {path} cannot be used: {what}", hint="mend the file, or remove it", code="prices"
    )
