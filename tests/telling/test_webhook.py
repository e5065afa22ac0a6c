"""A job's end is posted, signed, until it is accepted or given up; under one id, whatever dies on the way."""

from __future__ import annotations

import base64
import signal
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from langbatch import JobManager
from langbatch.emulator import EmulatorConfig, running_server
from langbatch.errors import SetupError
from langbatch.records import Target
from langbatch.telling.posting import Reply, post
from langbatch.telling.signing import read_secrets, signed_headers
from langbatch.telling.webhook import FIRST_WAIT_SECONDS, LONGEST_WAIT_SECONDS, PATIENCE_SECONDS, next_try
from running import CommandLine, pointing_at, request_line
from support import SECRET_KEY, SECRET_PROMPT, World, requests_file, world
from telling.receiving import KEY, SECRET, TOKEN, Answer, Receiver, receiver

DAY = 24 * 3600.0


@pytest.fixture
def here(tmp_path: Path) -> Iterator[World]:
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def hook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Receiver]:
    with receiver() as made:
        monkeypatch.setenv("LANGBATCH_WEBHOOK_URL", made.url)
        monkeypatch.setenv("LANGBATCH_WEBHOOK_SECRET", SECRET)
        yield made


def run_a_job(here: World, folder: Path, name: str = "a") -> str:
    with here.manager() as manager:
        job = manager.submit(requests_file(folder / f"{name}.jsonl", [name]), **here.azure)
        manager.wait(job.id)
        return job.id


def resume(here: World) -> None:
    """As `langbatch resume` from cron, in another process."""
    with here.manager() as manager:
        manager.advance(eager=True)


def told(here: World, *moves: str) -> list[str]:
    with here.manager() as manager:
        return [event.note or "" for event in manager.events() if event.move in moves]


# ---------------------------------------------------------------- what is sent


def test_a_job_that_finishes_is_posted_once_with_what_became_of_it(
    here: World, tmp_path: Path, hook: Receiver
) -> None:
    job_id = run_a_job(here, tmp_path, name="a")
    resume(here)
    (post,) = hook.got
    assert post.headers["content-type"] == "application/json"
    with here.manager() as manager:
        status = manager.status(job_id, offline=True)
        end = list(manager.events(job_id))[-2]
    document = post.document
    assert document["type"] == "job.finished"
    assert document["timestamp"] == document["data"]["finished_at"] == end.to_dict()["at"]
    assert document["data"] == {
        "id": job_id,
        "name": None,
        "state": "completed",
        "total": 1,
        "counts": {
            "succeeded": 1, "errored": 0, "expired": 0, "cancelled": 0, "missing": 0, "unreadable": 0,
        },
        "usage": {"input_tokens": status.usage.input_tokens, "output_tokens": status.usage.output_tokens},
        "created_at": document["data"]["created_at"],
        "finished_at": document["timestamp"],
    }  # fmt: skip
    assert told(here, "webhook_delivered") == [f"{post.id} HTTP 204 tries=1"]


def test_it_is_signed_as_the_standard_says(here: World, tmp_path: Path, hook: Receiver) -> None:
    run_a_job(here, tmp_path)
    (post,) = hook.got
    assert post.is_signed_with(KEY)
    assert not post.is_signed_with(b"another key of the same 32 bytes")
    assert post.headers["webhook-timestamp"] == str(int(here.clock.now()))


def test_the_signature_is_the_one_of_the_standards_own_libraries() -> None:
    (key,) = read_secrets("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "SECRET")
    headers = signed_headers("msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330.9, b'{"test": 2432232314}', [key])
    assert headers == {
        "webhook-id": "msg_p5jXN8AQM9LWM0D4loKWxJek",
        "webhook-timestamp": "1614265330",
        "webhook-signature": "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=",
    }


def test_while_a_secret_is_replaced_both_sign(
    here: World, tmp_path: Path, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    new = b"the next key, of 32 bytes as well"
    monkeypatch.setenv("LANGBATCH_WEBHOOK_SECRET", f"{SECRET} whsec_{base64.b64encode(new).decode()}")
    run_a_job(here, tmp_path)
    (post,) = hook.got
    assert post.is_signed_with(KEY)
    assert post.is_signed_with(new)


def test_each_end_of_a_job_is_posted_under_an_id_of_its_own(
    here: World, tmp_path: Path, hook: Receiver
) -> None:
    with here.manager() as manager:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), start=False, **here.azure)
        manager.cancel(job.id)
        manager.retry(job.id)
        manager.wait(job.id)
    assert [post.document["data"]["state"] for post in hook.got] == ["cancelled", "completed"]
    assert len(set(hook.ids)) == 2


def test_neither_the_secret_nor_the_address_nor_a_prompt_is_kept_or_told(
    here: World, tmp_path: Path, hook: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    hook.answers = [Answer(500)]
    run_a_job(here, tmp_path)
    stored = b"".join(path.read_bytes() for path in here.home.glob("langbatch.db*"))
    sent = b"".join(post.body for post in hook.got)
    assert [record for record in caplog.records if record.name == "langbatch"]
    for secret in (SECRET, SECRET.removeprefix("whsec_"), TOKEN):
        assert secret.encode() not in stored
        assert secret not in caplog.text
    for secret in (SECRET_PROMPT, SECRET_KEY, SECRET):
        assert secret.encode() not in sent


# ---------------------------------------------------------------- tried again


def test_what_is_refused_is_tried_again_with_the_same_id_and_body(
    here: World, tmp_path: Path, hook: Receiver
) -> None:
    hook.answers = [Answer(500), Answer(404)]
    run_a_job(here, tmp_path)
    for _ in range(3):
        here.clock.sleep(60)
        resume(here)
    assert len(hook.got) == 3
    assert len(set(hook.ids)) == 1
    assert len({post.body for post in hook.got}) == 1
    assert len({post.headers["webhook-timestamp"] for post in hook.got}) == 3
    assert all(post.is_signed_with(KEY) for post in hook.got)
    assert told(here, "webhook_failed") == [f"{hook.ids[0]} HTTP 500"]
    assert told(here, "webhook_delivered") == [f"{hook.ids[0]} HTTP 204 tries=3"]


def test_it_is_not_tried_again_before_its_time(here: World, tmp_path: Path, hook: Receiver) -> None:
    hook.answers = [Answer(503, {"Retry-After": "7200"})]
    run_a_job(here, tmp_path)
    here.clock.sleep(7100)
    resume(here)
    assert len(hook.got) == 1
    here.clock.sleep(101)
    resume(here)
    assert len(hook.got) == 2


def test_redirects_are_not_followed(here: World, tmp_path: Path, hook: Receiver) -> None:
    hook.answers = [Answer(307, {"Location": hook.url + "/elsewhere"}), Answer(302, {"Location": hook.url})]
    run_a_job(here, tmp_path)
    assert len(hook.got) == 1
    here.clock.sleep(60)
    resume(here)
    assert [post.path for post in hook.got] == [f"/hooks/{TOKEN}"] * 2
    assert "by GET" not in hook.ids


def test_a_receiver_that_is_not_there_is_tried_until_it_is(
    here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with receiver() as gone:
        pass
    monkeypatch.setenv("LANGBATCH_WEBHOOK_URL", gone.url)
    monkeypatch.setenv("LANGBATCH_WEBHOOK_SECRET", SECRET)
    run_a_job(here, tmp_path)
    (failed,) = told(here, "webhook_failed")
    assert "refused" in failed.lower()
    (record,) = (record for record in caplog.records if record.name == "langbatch")
    assert record.message.startswith("a webhook could not be delivered yet")
    assert told(here, "webhook_delivered", "webhook_given_up") == []


def test_after_three_days_it_is_given_up_and_that_is_said(
    here: World, tmp_path: Path, hook: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    hook.answers = [Answer(500)] * 100
    job_id = run_a_job(here, tmp_path)
    caplog.clear()
    for _ in range(100):
        here.clock.sleep(3600)
        resume(here)
        if told(here, "webhook_given_up"):
            break
    (given_up,) = told(here, "webhook_given_up")
    assert given_up == f"{hook.ids[0]} HTTP 500 tries={len(hook.got)}"
    times = [int(post.headers["webhook-timestamp"]) for post in hook.got]
    assert 71 * 3600 < times[-1] - times[0] <= 73 * 3600
    assert f"the webhook for job {job_id} is given up after {len(hook.got)} tries: HTTP 500" in caplog.text
    before = len(hook.got)
    here.clock.sleep(DAY)
    resume(here)
    assert len(hook.got) == before


def test_the_time_to_give_up_is_a_setting(
    here: World, tmp_path: Path, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGBATCH_WEBHOOK_SECONDS", "60")
    hook.answers = [Answer(500)] * 100
    run_a_job(here, tmp_path)
    here.clock.sleep(61)
    resume(here)
    assert len(told(here, "webhook_given_up")) == 1


def test_a_receiver_that_says_it_is_gone_is_believed(here: World, tmp_path: Path, hook: Receiver) -> None:
    hook.answers = [Answer(410)]
    run_a_job(here, tmp_path)
    here.clock.sleep(60)
    resume(here)
    assert len(hook.got) == 1
    assert told(here, "webhook_given_up") == [f"{hook.ids[0]} HTTP 410 tries=1"]


def test_what_another_address_was_never_sent_is_given_up_by_whoever_comes_by(
    here: World, tmp_path: Path, hook: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    hook.answers = [Answer(500)]
    run_a_job(here, tmp_path)
    monkeypatch.setenv("LANGBATCH_WEBHOOK_URL", hook.url + "-new")
    here.clock.sleep(2 * DAY)
    resume(here)
    assert told(here, "webhook_given_up") == []
    here.clock.sleep(2 * DAY)
    resume(here)
    assert len(told(here, "webhook_given_up")) == 1
    assert len(hook.got) == 1


def test_a_purged_jobs_webhook_is_forgotten(here: World, tmp_path: Path, hook: Receiver) -> None:
    hook.answers = [Answer(500)]
    job_id = run_a_job(here, tmp_path)
    with here.manager() as manager:
        manager.purge(job_id)
    here.clock.sleep(60)
    resume(here)
    assert len(hook.got) == 1


def test_jobs_that_ended_before_there_was_a_webhook_are_not_posted(
    here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_a_job(here, tmp_path, "before")
    with receiver() as hook:
        monkeypatch.setenv("LANGBATCH_WEBHOOK_URL", hook.url)
        monkeypatch.setenv("LANGBATCH_WEBHOOK_SECRET", SECRET)
        resume(here)
        job_id = run_a_job(here, tmp_path, "after")
    assert [post.document["data"]["id"] for post in hook.got] == [job_id]


@pytest.mark.parametrize("tries", [0, 1, 2, 3, 8, 500])
@pytest.mark.parametrize("roll", [0.0, 0.5, 0.999])
def test_waits_grow_to_hours_and_never_pass_the_end(tries: int, roll: float) -> None:
    due = next_try(1000.0, tries, Reply(500, ""), 1000.0, PATIENCE_SECONDS, roll)
    assert due is not None
    wait = due - 1000.0
    wanted = min(FIRST_WAIT_SECONDS * 4.0 ** min(tries, 10), LONGEST_WAIT_SECONDS)
    assert 0.8 * wanted <= wait <= 1.2 * wanted
    near_the_end = 1000.0 + PATIENCE_SECONDS - 1
    assert next_try(1000.0, tries, Reply(500, ""), near_the_end, PATIENCE_SECONDS, roll) == near_the_end + 1
    assert next_try(1000.0, tries, Reply(500, ""), near_the_end + 1, PATIENCE_SECONDS, roll) is None


# ---------------------------------------------------------------- nobody waits for it, nobody doubles it


def test_a_slow_receiver_delays_no_result(here: World, tmp_path: Path, hook: Receiver) -> None:
    held = threading.Event()
    hook.answers = [Answer(204, when=held)]
    manager = here.manager()
    try:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
        manager.wait(job.id)
        assert [result.outcome for result in manager.results(job.id)] == ["succeeded"]
        hook.wait_for(1)
        assert told(here, "webhook_delivered") == []  # all of that while it has not been answered
    finally:
        held.set()
        manager.close()
    assert len(told(here, "webhook_delivered")) == 1


def test_managers_at_once_post_once(here: World, tmp_path: Path, hook: Receiver) -> None:
    with here.manager() as manager:
        manager.advance()
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), start=False, **here.azure)
    managers = [here.manager() for _ in range(4)]
    threads = [threading.Thread(target=manager.wait, args=(job.id,)) for manager in managers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for manager in managers:
        manager.close()
    assert len(hook.got) == 1


def test_what_one_process_is_trying_no_other_tries(here: World, tmp_path: Path, hook: Receiver) -> None:
    held = threading.Event()
    hook.answers = [Answer(204, when=held)]
    manager = here.manager()
    try:
        job = manager.submit(requests_file(tmp_path / "in.jsonl", ["a"]), **here.azure)
        manager.wait(job.id)
        hook.wait_for(1)
        resume(here)  # by another manager, which waits for its own tries when it is closed
        assert len(hook.got) == 1
    finally:
        held.set()
        manager.close()
    assert len(hook.got) == 1


def test_looking_without_asking_the_service_sends_nothing(
    here: World, tmp_path: Path, hook: Receiver
) -> None:
    hook.answers = [Answer(500)]
    job_id = run_a_job(here, tmp_path)
    here.clock.sleep(60)
    with here.manager() as manager:
        manager.status(job_id, offline=True)
        manager.jobs()
        list(manager.results(job_id))
    assert len(hook.got) == 1


@pytest.fixture
def langbatch(tmp_path: Path, hook: Receiver) -> Iterator[CommandLine]:
    (tmp_path / "in.jsonl").write_text("".join(map(request_line, "abc")))
    with running_server(config=EmulatorConfig.instant()) as server:
        told_of = {"LANGBATCH_WEBHOOK_URL": hook.url, "LANGBATCH_WEBHOOK_SECRET": SECRET}
        yield CommandLine(tmp_path, {**pointing_at(server), **told_of})


def test_a_process_killed_between_the_delivery_and_its_commit_is_followed_by_the_same_id(
    langbatch: CommandLine, hook: Receiver
) -> None:
    held = threading.Event()
    hook.answers = [Answer(204, when=held)]
    with langbatch.started("submit", "in.jsonl", "--provider", "azure", "--wait") as process:
        hook.wait_for(1)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    held.set()
    # There is nothing left to do for the job; the dead process's claim is taken over at once.
    assert langbatch("resume").code == 0
    first, second = hook.got
    assert first.id == second.id
    assert first.body == second.body
    assert second.is_signed_with(KEY)
    assert langbatch("resume").code == 0
    assert len(hook.got) == 2


def test_two_processes_at_once_post_once(langbatch: CommandLine, hook: Receiver) -> None:
    assert langbatch.here("submit", "in.jsonl", "--provider", "azure").code == 0
    with langbatch.started("resume", "--wait") as first, langbatch.started("resume", "--wait") as second:
        assert {first.wait(), second.wait()} == {0}
    assert len(hook.got) == 1


def test_the_command_line_says_what_is_wrong_with_a_webhook_before_it_does_anything(
    langbatch: CommandLine,
) -> None:
    ran = langbatch.here("submit", "in.jsonl", "--provider", "azure", LANGBATCH_WEBHOOK_SECRET="")
    assert ran.code == 5
    assert "LANGBATCH_WEBHOOK_SECRET" in ran.err
    assert "make one: python" in ran.err
    assert not langbatch.home.exists()


# ---------------------------------------------------------------- what is set


@pytest.mark.parametrize(
    ("variables", "words"),
    [
        ({"LANGBATCH_WEBHOOK_URL": "http://hooks.example.com/x"}, "without encryption"),
        ({"LANGBATCH_WEBHOOK_URL": "hooks.example.com/x"}, "not a whole address"),
        ({"LANGBATCH_WEBHOOK_URL": "https://user:word@hooks.example.com/"}, "user name or password"),
        ({"LANGBATCH_WEBHOOK_SECRET": "whsec_not base64!"}, "not base64"),
        ({"LANGBATCH_WEBHOOK_SECRET": "whsec_c2hvcnQ="}, "5 bytes, not 24 to 64"),
        ({"LANGBATCH_WEBHOOK_SECRET": ""}, "LANGBATCH_WEBHOOK_SECRET is not"),
        ({"LANGBATCH_WEBHOOK_SECONDS": "soon"}, "not a number of seconds"),
    ],
)
def test_what_could_not_work_is_told_at_once(
    variables: dict[str, str], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usable = {"LANGBATCH_WEBHOOK_URL": "https://hooks.example.com/x", "LANGBATCH_WEBHOOK_SECRET": SECRET}
    for name, value in {**usable, **variables}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(SetupError, match=words) as caught:
        JobManager(tmp_path)
    assert caught.value.hint
    for secret in (SECRET, "user:word", "not base64!"):
        assert secret not in f"{caught.value} {caught.value.hint}"


def test_plain_http_is_allowed_on_this_machine_and_where_it_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LANGBATCH_WEBHOOK_SECRET", SECRET)
    monkeypatch.setenv("LANGBATCH_WEBHOOK_URL", "http://localhost:1/x")
    JobManager(tmp_path)
    monkeypatch.setenv("LANGBATCH_WEBHOOK_URL", "http://hooks.example.com/x")
    monkeypatch.setenv("LANGBATCH_ALLOW_HTTP", "1")
    JobManager(tmp_path)


def test_a_profile_names_the_secrets_variable_and_never_the_secret(
    here: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here.home.mkdir()
    with receiver() as hook:
        monkeypatch.setenv("PROD_HOOK_SECRET", SECRET)
        profiles = here.home / "profiles.toml"
        profiles.write_text(
            f'[prod]\nwebhook_url = "{hook.url}"\nwebhook_secret_env = "PROD_HOOK_SECRET"\n'
            f'webhook_seconds = 60\nevent_log = "{tmp_path}/events.jsonl"\n'
        )
        with JobManager(here.home, clock=here.clock, profile="prod") as manager:
            target = Target("azure", "res.openai.azure.com", "chat_completions", "dep")
            job = manager.store_job(requests_file(tmp_path / "in.jsonl", ["a"]), target)
            manager.cancel(job.id)
        assert [post.is_signed_with(KEY) for post in hook.got] == [True]
    assert (tmp_path / "events.jsonl").read_text().count("job_finished") == 1
    profiles.write_text(f'[prod]\nwebhook_secret = "{SECRET}"\n')
    with pytest.raises(SetupError, match="holds a secret") as caught:
        JobManager(here.home, profile="prod")
    assert SECRET not in f"{caught.value} {caught.value.hint}"


def test_nothing_of_an_answer_is_read_and_nothing_is_raised() -> None:
    with receiver() as gone:
        pass
    reply = post(gone.url, b"{}", {}, 5.0)
    assert (reply.status, reply.accepted) == (None, False)
    assert TOKEN not in reply.words


def test_a_database_of_the_webhooks_is_empty_once_they_are_delivered(
    here: World, tmp_path: Path, hook: Receiver
) -> None:
    run_a_job(here, tmp_path)
    with sqlite3.connect(here.home / "langbatch.db") as database:
        assert database.execute("SELECT count(*) FROM deliveries").fetchone() == (0,)
    database.close()


def test_a_job_purged_while_its_webhook_is_under_way_holds_up_no_other(
    here: World, tmp_path: Path, hook: Receiver
) -> None:
    held = threading.Event()
    hook.answers = [Answer(204, when=held)]
    manager = here.manager()
    try:
        first = manager.submit(requests_file(tmp_path / "a.jsonl", ["a"]), **here.azure)
        manager.wait(first.id)
        hook.wait_for(1)
        manager.purge(first.id)
        second = manager.submit(requests_file(tmp_path / "b.jsonl", ["b"]), **here.azure)
        manager.wait(second.id)
    finally:
        held.set()
        manager.close()
    assert [post.document["data"]["id"] for post in hook.got] == [first.id, second.id]
