"""`profiles.toml`: several targets under a name, and no secret in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from langbatch import SetupError
from langbatch.config.resolving import reopen_target, resolve_targets
from langbatch.config.settings import find_profile
from langbatch.profiles import read_profile

TWO = """
[prod]
provider = "azure"
poll_seconds = 30

[[prod.targets]]
azure_endpoint = "https://east.openai.azure.com"
deployment = "mini-east"
api_key_env = "EAST_KEY"
weight = 2
quota_tokens = 5_000_000

[[prod.targets]]
azure_endpoint = "https://west.openai.azure.com"
deployment = "mini-west"
api_key_env = "WEST_KEY"

[small]
azure_endpoint = "https://one.openai.azure.com"
deployment = "one"
"""
KEYS = {"EAST_KEY": "e", "WEST_KEY": "w", "AZURE_API_KEY": "k"}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "profiles.toml"
    path.write_text(TWO)
    return path


def test_each_target_of_a_profile_has_its_own_key_weight_and_quota(file: Path) -> None:
    profile = read_profile(file, "prod")
    found = resolve_targets("azure", "chat_completions", profile=profile, environ=KEYS)
    assert [(t.label, c.api_key) for t, c in found] == [
        ("azure/east.openai.azure.com/mini-east", "e"),
        ("azure/west.openai.azure.com/mini-west", "w"),
    ]
    east, west = (target for target, _ in found)
    assert (east.weight, east.quota_tokens) == (2.0, 5_000_000)
    assert (west.weight, west.quota_tokens) == (1.0, None)
    assert profile.settings == {"poll_seconds": "30"}


def test_after_a_restart_the_key_comes_from_the_variable_that_the_profile_named(file: Path) -> None:
    found = resolve_targets("azure", "chat_completions", profile=read_profile(file, "prod"), environ=KEYS)
    assert reopen_target(found[1][0], {**KEYS, "WEST_KEY": "renewed"}).api_key == "renewed"
    with pytest.raises(SetupError, match="WEST_KEY"):
        reopen_target(found[1][0], {})


def test_a_profile_with_one_target_may_be_flat(file: Path) -> None:
    profile = read_profile(file, "small")
    found = resolve_targets("azure", "chat_completions", profile=profile, environ=KEYS)
    assert [target.label for target, _ in found] == ["azure/one.openai.azure.com/one"]


def test_several_deployments_of_one_resource_need_no_profile() -> None:
    found = resolve_targets(
        "azure",
        "chat_completions",
        azure_endpoint="https://r.openai.azure.com",
        deployment=["a", "b"],
        environ=KEYS,
    )
    assert [target.model for target, _ in found] == ["a", "b"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[p]\napi_key = 'x'", "holds a secret"),
        ("[[p.targets]]\nclient_secret = 'x'", "holds a secret"),
        ("[p]\nazure_endpont = 'x'", "azure_endpont is unknown"),
        ("[p]\ndeployment = 'x'\n[[p.targets]]\ndeployment = 'y'", "deployment belongs into a target"),
        ("[p]\ntargets = 3", "targets must be tables"),
        ("[q]\n", "known: q"),
        ("[p", "cannot be read"),
    ],
)
def test_a_wrong_profile_says_what_is_wrong(text: str, message: str, file: Path) -> None:
    file.write_text(text)
    with pytest.raises(SetupError) as error:
        read_profile(file, "p")
    assert message in f"{error.value} {error.value.hint}"
    assert "'x'" not in str(error.value)


def test_a_profile_that_is_named_but_not_there_is_an_error_and_none_is_none(tmp_path: Path) -> None:
    assert find_profile(None, tmp_path, {}) is None
    with pytest.raises(SetupError, match="does not exist"):
        find_profile(None, tmp_path, {"LANGBATCH_PROFILE": "prod"})


@pytest.mark.parametrize("weight", [0, -1, True, "2", float("nan")])
def test_a_weight_is_a_number_above_zero(weight: object) -> None:
    with pytest.raises(SetupError, match="weight"):
        resolve_targets("openai", "chat_completions", weight=weight, environ={"OPENAI_API_KEY": "k"})


def test_a_target_named_twice_is_refused() -> None:
    with pytest.raises(SetupError, match="named twice"):
        resolve_targets(
            "azure",
            "chat_completions",
            azure_endpoint="https://r.openai.azure.com",
            deployment=["a", "a"],
            environ=KEYS,
        )
