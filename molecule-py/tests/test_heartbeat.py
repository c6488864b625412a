"""The loop, whatever Python and the platform do meanwhile."""

import asyncio
import gc
import itertools
import logging
import threading
import time
from pathlib import Path

import molecule
import pytest

from .conftest import PATIENCE, Script, Server, until
from .platform import Answer, Platform, answer

ID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"


def loop(platform: Platform, folder: Path, interval: float = 0.02, timeout: float = 30.0) -> molecule.HeartbeatLoop:
    agent = molecule.Agent(
        workspace_id=ID, platform_url=platform.url, token="t0ken", configs_dir=folder, timeout=timeout
    )
    return molecule.HeartbeatLoop(agent, interval=interval)


def test_three_lines_make_a_member_of_the_fleet(server: Server, script: Script) -> None:
    workspace = server.create("three-lines")
    said = script.run(
        "import molecule\n"
        "with molecule.HeartbeatLoop() as beats: beats.wait_accepted(); print(beats.status.last)",
        **workspace,
    )
    assert said == "ok"
    assert server.status(workspace) == "online"


def test_it_says_the_whole_beat_and_who_speaks(platform: Platform, tmp_path: Path) -> None:
    beats = loop(platform, tmp_path)
    beats.update(error_rate=0.5, sample_error="oops", active_tasks=2, current_task="adding", monthly_spend=7)
    beats.update(capabilities={"scheduler": True}, idle_timeout_seconds=60)
    with beats:
        (first, *_) = until("a beat", platform.beats)
        assert first.body == {
            "workspace_id": ID,
            "error_rate": 0.5,
            "sample_error": "oops",
            "active_tasks": 2,
            "uptime_seconds": 0,
            "current_task": "adding",
            "runtime_metadata": {"capabilities": {"scheduler": True}, "idle_timeout_seconds": 60},
            "monthly_spend": 7,
        }
        headers = first.headers
        assert headers["origin"] == platform.url and headers["authorization"] == "Bearer t0ken"
        beats.update(current_task="", runtime_state="wedged", active_tasks=0)
        body = until("the change", lambda: [b for b in platform.beats() if "current_task" not in b.body])[0].body
        assert body["runtime_state"] == "wedged" and body["active_tasks"] == 0 and body["error_rate"] == 0.5


def test_it_starts_and_stops_as_often_as_told(platform: Platform, tmp_path: Path) -> None:
    beats = loop(platform, tmp_path)
    assert not beats.status.running and beats.status.last is None
    beats.stop()
    with pytest.raises(molecule.InvalidInputError, match="not running"):
        beats.wait_accepted()
    for _ in range(2):
        beats.start()
        beats.start()
        beats.wait_accepted(PATIENCE)
        assert beats.status.running and beats.status.message == "the platform knows that the workspace lives"
        beats.stop()
        assert not beats.status.running and beats.status.last == "ok"
        assert "accepted=" in repr(beats)
        seen = len(platform.beats())
        time.sleep(0.1)
        assert len(platform.beats()) == seen
    names = [Path(f"/proc/self/task/{task.name}/comm").read_text() for task in Path("/proc/self/task").iterdir()]
    assert "molecule-heartb\n" not in names


def test_a_loop_that_is_dropped_stops(platform: Platform, tmp_path: Path) -> None:
    beats = loop(platform, tmp_path)
    beats.start()
    until("a beat", platform.beats)
    del beats
    gc.collect()

    def still() -> bool:
        seen = len(platform.beats())
        time.sleep(0.2)
        return len(platform.beats()) == seen

    until("silence", still)


def test_asyncio_waits_for_it_without_blocking(platform: Platform, tmp_path: Path) -> None:
    async def main() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0.001)

        ticking = asyncio.create_task(tick())
        platform.answers = [answer({}, 500), answer({}, 500), answer({})]
        async with loop(platform, tmp_path) as beats:
            await beats.wait_accepted_async(PATIENCE)
            assert beats.status.accepted >= 1
        assert not beats.status.running
        ticking.cancel()
        return ticks

    assert asyncio.run(main()) > 1


HELD = """
import ctypes, molecule, time
beats = molecule.HeartbeatLoop(interval=0.1)
beats.start()
beats.wait_accepted(60)
print(time.monotonic())
{hold}
print(time.monotonic())
print(beats.status.other_failures)
"""


@pytest.mark.parametrize(
    "hold",
    [
        # A call into C that keeps the interpreter to itself.
        "ctypes.PyDLL(None).usleep(3_000_000)",
        # One that lets go of it.
        "time.sleep(3)",
        # Python that never comes to an end of its own accord.
        "end = time.monotonic() + 3\nwhile time.monotonic() < end: pass",
        # One operation that lets nobody else in.
        "end = time.monotonic() + 3\nwhile time.monotonic() < end: sum(range(20_000_000))",
    ],
)
def test_no_beat_is_missed_while_python_is_busy(platform: Platform, script: Script, hold: str) -> None:
    said = script.run(
        HELD.format(hold=hold), WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken"
    )
    began, ended, failures = (float(word) for word in said.split())
    times = [beat.at for beat in platform.beats() if began - 0.2 <= beat.at <= ended]
    gaps = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert failures == 0 and len(times) >= 10, times
    assert max(gaps) < 1.5, f"a gap of {max(gaps)} s on a busy machine, where 0.1 s is meant"


@pytest.mark.parametrize("wait", ["", "time.sleep(0.2)", "beats.wait_accepted(60)"])
def test_a_process_ends_in_peace_while_its_loop_runs(platform: Platform, script: Script, wait: str) -> None:
    for _ in range(5):
        script.run(
            "import logging, molecule, time\n"
            "logging.basicConfig(level=logging.INFO)\n"
            "beats = molecule.HeartbeatLoop(interval=0.001, on_beat=lambda status: time.sleep(0.001))\n"
            f"beats.start()\n{wait}",
            WORKSPACE_ID=ID,
            PLATFORM_URL=platform.url,
        )


def test_a_forked_process_starts_a_loop_of_its_own(platform: Platform, script: Script) -> None:
    """It has none of the threads of the one before, and nothing waits for them."""
    said = script.run(
        "import os, sys, molecule\n"
        "agent = molecule.Agent(timeout=3)\n"
        "agent.register()\n"
        "beats = molecule.HeartbeatLoop(agent, interval=0.05)\n"
        "beats.start()\n"
        "beats.wait_accepted()\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    assert not beats.status.running, beats.status\n"
        "    agent.register()\n"
        "    beats.start()\n"
        "    beats.wait_accepted()\n"
        "    assert beats.status.running\n"
        "    beats.stop()\n"
        "    sys.exit(7)\n"
        "_, status = os.waitpid(child, 0)\n"
        "print(os.waitstatus_to_exitcode(status), beats.status.running)\n"
        "beats.stop()\n",
        WORKSPACE_ID=ID,
        PLATFORM_URL=platform.url,
    )
    assert said.strip() == "7 True"


def test_a_dead_event_loop_stops_nothing(platform: Platform, script: Script) -> None:
    said = script.run(
        "import asyncio, molecule, time\n"
        "beats = molecule.HeartbeatLoop(interval=0.05)\n"
        "async def main():\n"
        "    beats.start()\n"
        "    await beats.wait_accepted_async(60)\n"
        "    raise RuntimeError('dies')\n"
        "try: asyncio.run(main())\n"
        "except RuntimeError: pass\n"
        "before = beats.status.accepted\n"
        "while beats.status.accepted < before + 3: time.sleep(0.01)\n"
        "print('lives')",
        WORKSPACE_ID=ID,
        PLATFORM_URL=platform.url,
    )
    assert said == "lives"


@pytest.mark.parametrize(
    ("given", "last", "message"),
    [
        (answer([1]), "ok", "lives"),
        (Answer(body=b"<html>Welcome</html>"), "ok", "lives"),
        (Answer(body=b"x" * 1_048_576), "ok", "lives"),
        (Answer(never=True), "unreachable", "no answer in time"),
        (Answer(307, headers={"Location": "/elsewhere"}), "server_error", "redirects"),
        (answer({}, 500), "server_error", "HTTP 500"),
        (answer({}, 401), "unauthorized", "wrong or revoked"),
        (answer({"error": "workspace removed"}, 410), "removed", "was removed on the platform"),
        (answer({}, 404), "removed", "was removed on the platform"),
    ],
)
def test_it_outlives_every_answer(platform: Platform, tmp_path: Path, given: Answer, last: str, message: str) -> None:
    platform.answers = [given, given, answer({"status": "ok"})]
    seen: list[molecule.HeartbeatStatus] = []
    base = loop(platform, tmp_path)
    agent = molecule.Agent(
        workspace_id=ID, platform_url=platform.url, token="t0ken", configs_dir=tmp_path, timeout=1.0
    )
    assert base.agent.platform_url == agent.platform_url
    with molecule.HeartbeatLoop(agent, interval=0.05, on_beat=seen.append):
        until("three beats", lambda: len(seen) >= 3)
    assert seen[0].last == last and message in seen[0].message
    assert {beat.path for beat in platform.requests} == {"/registry/heartbeat"}
    assert seen[-1].last == "ok" and seen[-1].auth_failures == seen[-1].other_failures == 0


def test_it_keeps_the_secret_of_the_platform(platform: Platform, tmp_path: Path) -> None:
    platform.answers = [answer({"platform_inbound_secret": ""}), answer({"platform_inbound_secret": "s3cret"}), answer({})]
    beats = loop(platform, tmp_path)
    with beats:
        until("the secret", lambda: beats.agent.verify_inbound("Bearer s3cret"))
    assert (tmp_path / ".platform_inbound_secret").read_text() == "s3cret"


def test_rejections_are_told_and_at_the_third_as_an_error(
    platform: Platform, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "molecule")
    platform.answers = [answer({}, 401)]
    with loop(platform, tmp_path) as beats:
        until("24 rejections", lambda: beats.status.auth_failures >= 24)

        def told() -> list[tuple[str, str]]:
            lines = [(record.levelname, record.getMessage()) for record in caplog.records]
            return [(level, line) for level, line in lines if "auth failure" in line]

        until("four lines", lambda: len(told()) >= 4)
        assert [level for level, _ in told()[:4]] == ["WARNING", "WARNING", "ERROR", "ERROR"]
        assert "auth failure 1/3" in told()[0][1] and "REVOKED" in told()[2][1] and "23 consecutive" in told()[3][1]
        platform.answers = [answer({})]
        until("a new start", lambda: beats.status.auth_failures == 0)
    assert "t0ken" not in caplog.text


def test_a_token_that_another_process_saved_is_taken_up(platform: Platform, tmp_path: Path) -> None:
    platform.answers = [answer({}, 401)]
    with loop(platform, tmp_path):
        until("a beat", platform.beats)
        (tmp_path / ".auth_token").write_text("rotated")
        until(
            "the new token", lambda: [b for b in platform.beats() if b.headers.get("authorization") == "Bearer rotated"]
        )


def test_a_rate_limit_and_a_wish_for_another_pace_are_followed(platform: Platform, tmp_path: Path) -> None:
    platform.answers = [answer({}, 429, Retry_After="1"), answer({"next_heartbeat_secs": 2}), answer({})]
    with loop(platform, tmp_path):
        until("three beats", lambda: len(platform.beats()) >= 3)
    times = [beat.at for beat in platform.beats()]
    assert times[1] - times[0] >= 1.0
    assert times[2] - times[1] >= 1.6


def test_a_workspace_that_is_removed_while_the_loop_runs_is_told_in_plain_words(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    workspace = server.create("removed-meanwhile")
    agent = molecule.Agent(
        workspace_id=workspace["WORKSPACE_ID"],
        platform_url=server.url,
        token=workspace["MOLECULE_WORKSPACE_TOKEN"],
        configs_dir=tmp_path,
    )
    with molecule.HeartbeatLoop(agent, interval=0.1) as beats:
        beats.wait_accepted(PATIENCE)
        server.delete(workspace)
        # Its tokens went with it.
        until("the news", lambda: beats.status.last == "unauthorized")
        assert "as when the workspace was removed" in beats.status.message
        (error, *_) = until(
            "an error", lambda: [line.getMessage() for line in caplog.records if line.levelno == logging.ERROR]
        )
        assert f"workspace {agent.workspace_id} was deleted server-side" in error
        assert beats.status.running


def test_a_callback_that_fails_or_dawdles_stops_nothing(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = threading.Event()
    monkeypatch.setattr("sys.unraisablehook", lambda unraisable: failed.set())
    release = threading.Event()

    def dawdle(status: molecule.HeartbeatStatus) -> None:
        release.wait(PATIENCE)
        raise RuntimeError("a broken callback")

    agent = molecule.Agent(workspace_id=ID, platform_url=platform.url, configs_dir=tmp_path)
    with molecule.HeartbeatLoop(agent, interval=0.02, on_beat=dawdle) as beats:
        until("beats", lambda: beats.status.accepted >= 5)
        release.set()
        assert failed.wait(PATIENCE)
        before = beats.status.accepted
        until("more beats", lambda: beats.status.accepted >= before + 2)


@pytest.mark.parametrize("interval", [0, -1, float("nan"), float("inf")])
def test_an_interval_is_a_time(platform: Platform, tmp_path: Path, interval: float) -> None:
    with pytest.raises(ValueError, match="interval must be a positive number"):
        loop(platform, tmp_path, interval=interval)


def test_wait_accepted_gives_up_and_says_why(platform: Platform, tmp_path: Path) -> None:
    platform.answers = [answer({}, 500)]
    with loop(platform, tmp_path) as beats, pytest.raises(molecule.UnavailableError, match="HTTP 500") as raised:
        beats.wait_accepted(0.5)
    assert raised.value.retryable
