"""What a submit would send, worked out in a folder that goes away: shards, tokens, costs, rounds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from langbatch.config.resolving import resolve_targets
from langbatch.errors import SetupError
from langbatch.money.costs import Budget, Commitment, budget_refusal, exact_text, of_nanos
from langbatch.money.pricing import Forecast, forecast
from langbatch.profiles import Profile, read_routing
from langbatch.records import Bounds, EndpointKind, OnProgress, Target
from langbatch.requests.validation import Intake, Rules, read_requests, refusal
from langbatch.reuse.parting import part, runs_of_sent
from langbatch.reuse.plan import ReuseCounts
from langbatch.running import quota
from langbatch.shards.admission import plan
from langbatch.shards.budgeting import bound_plans, pricing_for, require_currency
from langbatch.shards.earlier import find_earlier
from langbatch.shards.snapshot import REQUESTS, Snapshot, SnapshotWriter
from langbatch.targets import account_label

if TYPE_CHECKING:
    from langbatch.store.store import JobStore


@dataclass(frozen=True, slots=True)
class PlannedShard:
    """A shard as it would be; `first` counts what is sent from 0. `estimated_tokens` are input."""

    index: int
    first: int
    requests: int
    bytes: int
    estimated_tokens: int


@dataclass(frozen=True, slots=True)
class QuotaNeed:
    """`at_once` of the shards fit the quotas as known, `limit_tokens` together; the rest wait for them, so
    that they are sent in `rounds`."""

    limit_tokens: int
    at_once: int
    rounds: int


@dataclass(frozen=True, slots=True)
class BudgetNeed:
    """What is reserved of a budget when every shard is sent, and how many shards fit at once. Those that end
    give back what they did not use. Amounts are None where they are not known."""

    at_once: int
    most_tokens: int | None
    most_cost: Decimal | None
    currency: str | None


@dataclass(frozen=True, slots=True)
class Preview:
    """`quota` is None where a target's quota is neither stated nor learnt, `budget` where none is given,
    `reuse` where every request is sent. Shards, tokens, costs and needs are of what is sent."""

    intake: Intake
    shards: tuple[PlannedShard, ...]
    forecast: Forecast
    quota: QuotaNeed | None
    budget: BudgetNeed | None = None
    reuse: ReuseCounts | None = None

    def to_dict(self) -> dict[str, Any]:
        """The JSON document of the parts that are not the intake's."""
        tokens, cost = self.forecast.tokens, self.forecast.cost
        return {
            "shards": [
                {
                    "index": shard.index,
                    "first": shard.first,
                    "requests": shard.requests,
                    "bytes": shard.bytes,
                    "estimated_tokens": shard.estimated_tokens,
                }
                for shard in self.shards
            ],
            "tokens": {
                "input": tokens.input_tokens,
                "input_low": tokens.low,
                "input_high": tokens.high,
                "output_at_most": tokens.output_tokens_at_most,
                "method": tokens.method,
                "counted_requests": tokens.counted_requests,
                "counter": self.forecast.counter,
                **({"elsewhere": tokens.elsewhere} if tokens.elsewhere else {}),
            },
            "cost": None
            if cost is None
            else {
                "low": exact_text(cost.low),
                "high": None if cost.high is None else exact_text(cost.high),
                "currency": cost.currency,
                "as_of": None if self.forecast.as_of is None else self.forecast.as_of.isoformat(),
            },
            "cost_unknown": self.forecast.cost_unknown,
            "quota": None
            if self.quota is None
            else {
                "limit_tokens": self.quota.limit_tokens,
                "shards_at_once": self.quota.at_once,
                "rounds": self.quota.rounds,
            },
            "budget": None
            if self.budget is None
            else {
                "shards_at_once": self.budget.at_once,
                "most_tokens": self.budget.most_tokens,
                "most_cost": None if self.budget.most_cost is None else exact_text(self.budget.most_cost),
                "currency": self.budget.currency,
            },
            "reuse": None
            if self.reuse is None
            else {
                "sent": self.reuse.sent,
                "copies": self.reuse.copies,
                "answered": self.reuse.answered,
            },
        }


def preview(
    store: JobStore | None,
    home: Path,
    source: Path,
    rules: Rules,
    targets: Sequence[Target],
    *,
    budget: Budget,
    dedupe: bool = False,
    cache: bool = False,
    max_requests_per_shard: int | None = None,
    on_progress: OnProgress | None = None,
) -> Preview:
    """Nothing is kept and nothing is sent. Raises `BatchValidationError` as `submit` does, and `SetupError`
    for a budget that could not be kept. `store`: what was learnt is read there, if there is one."""
    with TemporaryDirectory(prefix="langbatch-") as temporary:
        folder = Path(temporary) / "snapshot"
        with SnapshotWriter(folder) as writer:
            intake = read_requests(source, rules, into=writer, on_progress=on_progress)
        if intake.problems and not rules.skip_invalid:
            raise refusal(intake)
        runs, reuse = intake.model_runs(), None
        if dedupe or (cache and store is not None):
            meant = [replace(target, model=target.model or intake.model) for target in targets]
            earlier = None
            if cache and store is not None:
                earlier = find_earlier(
                    store, home, meant, temporary=Path(temporary) / "cache", on_progress=on_progress
                )
            parted = part(folder, meant, dedupe=dedupe, cache=earlier, on_progress=on_progress)
            if parted is not None:
                reuse = parted.counts
                runs = runs_of_sent(folder, runs)
        snapshot = Snapshot(folder)
        plans, _ = plan(snapshot, targets, max_requests_per_shard, runs, intake.model)
        pricing = pricing_for(store, home, targets, intake.models)
        reserved = None
        if budget.limits_anything:
            currency = require_currency(budget, targets, intake.models, pricing)
            plans = bound_plans(snapshot, plans, targets, budget, pricing, on_progress)
            reserved = _budget_need(budget, [each.bounds for each in plans], currency)
        with (folder / REQUESTS).open("rb") as file:

            def read(offset: int, length: int) -> bytes:
                file.seek(offset)
                return file.read(length)

            def lines() -> Iterable[bytes]:
                return snapshot.lines(0, snapshot.total, 0)

            found = forecast(lines, read, targets, pricing)
    per_byte = found.tokens.input_tokens / max(found.tokens.bytes, 1)
    shards = tuple(
        PlannedShard(each.index, each.first, each.count, each.bytes, round(each.bytes * per_byte))
        for each in plans
    )
    limits = _limits(store, targets, [each.model for each in plans])
    need = None
    if limits is not None:
        at_once, rounds = quota.rounds([quota.estimate_tokens(each.bytes) for each in plans], limits)
        need = QuotaNeed(sum(limits), at_once, rounds)
    return Preview(intake, shards, found, need, reserved, reuse)


def _budget_need(budget: Budget, shards: Sequence[Bounds], currency: str | None) -> BudgetNeed:
    at_once, sent, whole = 0, Commitment(), Commitment()
    for bounds in shards:
        cost = None if bounds.cautious_cost_nanos is None else of_nanos(bounds.cautious_cost_nanos)
        wanted = Commitment(bounds.cautious_tokens, cost)
        whole += wanted
        if budget_refusal(budget, sent, wanted) is None:
            sent += wanted
            at_once += 1
    return BudgetNeed(at_once, whole.tokens, whole.cost, currency)


def _limits(
    store: JobStore | None, targets: Sequence[Target], models: Sequence[str | None]
) -> list[int] | None:
    """Each deployment's quota; None where one is not known."""
    found: dict[str, int | None] = {}
    for target in targets:
        for model in dict.fromkeys(models) if target.model is None else (None,):
            found[account_label(target, model)] = target.quota_tokens
    if store is not None:
        from langbatch.store import ledger

        for label, (account, _) in ledger.known(store, found).items():
            found[label] = found[label] if account.limit_tokens is None else account.limit_tokens
    limits = [limit for limit in found.values() if limit is not None]
    return limits if limits and len(limits) == len(found) else None


def targets_without_doors(
    provider: str,
    kind: EndpointKind,
    *,
    model: str | None,
    profile: Profile | None,
    targets: Sequence[Mapping[str, Any]],
    **arguments: Any,
) -> list[Target]:
    """As `submit` would resolve them; where credentials or an endpoint are missing, which a preview does not
    need, with what is known of them."""
    try:
        return [
            target
            for target, _ in resolve_targets(
                provider, kind, model=model, profile=profile, targets=targets, **arguments
            )
        ]
    except SetupError as error:
        if error.code == "unknown_provider":
            raise
    deployments = arguments.pop("deployment", None)
    several: Sequence[Mapping[str, Any]] = targets or ()
    if profile is not None:
        several, provider = profile.targets, profile.provider
    elif isinstance(deployments, list | tuple):
        several = [{"deployment": name} for name in deployments]
    elif not several:
        several = [{"deployment": deployments}]
    return [
        replace(
            Target(
                str(own.get("provider", provider)),
                "",
                kind,
                own.get("deployment") or own.get("model") or model,
            ),
            settings=read_routing({**arguments, **own}),
        )
        for own in several
    ]
