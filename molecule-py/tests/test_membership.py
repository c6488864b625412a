"""What ``molecule-mcp`` and ``molecule mcp`` do beside their tools: who they are, what they keep, what they say."""

import asyncio
import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from mcp import ClientSession

from .conftest import PATIENCE, until
from .platform import Answer, Platform, answer
from .test_mcp import COMMAND, ID, PYTHON, both, call, drive, log, run, variables

PEER = "7f9619ff-8b86-d011-b42d-00cf4fc964ff"


def member(platform: Platform, folder: Path, **more: str) -> dict[str, str]:
    """The environment of a workspace of ``platform``."""
    return variables(folder, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, **{"MOLECULE_WORKSPACE_TOKEN": "t0ken", **more})


class Line:
    """A client that writes and reads lines, for what the official one never says."""

    def __init__(self, command: list[str], environment: dict[str, str]) -> None:
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        self.said: list[str] = []
        self.answered: queue.Queue[str] = queue.Queue()
        assert self.process.stderr and self.process.stdout
        for source, take in [(self.process.stderr, self.said.append), (self.process.stdout, self.answered.put)]:
            threading.Thread(target=self._listen, args=(source, take), daemon=True).start()

    def _listen(self, source: IO[str], take: Callable[[str], None]) -> None:
        for line in source:
            take(line)

    def say(self, message: object) -> None:
        assert self.process.stdin
        self.process.stdin.write((message if isinstance(message, str) else json.dumps(message)) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        return json.loads(self.answered.get(timeout=PATIENCE))

    def begin(self, revision: str = "2025-06-18") -> Any:
        """What it says of itself."""
        parameters = {"protocolVersion": revision, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        self.say({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": parameters})
        said = self.hear()["result"]
        self.say({"jsonrpc": "2.0", "method": "notifications/initialized"})
        return said


@contextmanager
def line(command: list[str], environment: dict[str, str]) -> Iterator[Line]:
    line = Line(command, environment)
    try:
        yield line
    finally:
        line.process.kill()
        line.process.wait(PATIENCE)


@both
def test_one_token_proves_everything_and_everything_says_where_it_belongs(
    platform: Platform, tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / ".auth_token").write_text("stale")
    (tmp_path / "a.txt").write_text("a")
    platform.at[f"/workspaces/{ID}/activity"] = lambda request: log([])(request) if "?" in request.path else answer({})
    platform.at[f"/registry/discover/{PEER}"] = answer({"id": PEER, "name": "Ada", "url": ""})
    platform.at[f"/registry/{ID}/peers"] = answer([])
    platform.at[f"/workspaces/{ID}/memories"] = answer([])
    platform.at[f"/workspaces/{ID}/delegations"] = answer([])
    platform.at[f"/workspaces/{ID}/chat/uploads"] = answer({"files": [{"uri": "workspace:/a", "name": "a"}]})

    async def test(client: ClientSession) -> None:
        await call(client, "delegate_task", workspace_id=PEER, task="x")
        await call(client, "delegate_task_async", workspace_id=PEER, task="x")
        await call(client, "check_task_status", workspace_id=PEER, task_id="x")
        await call(client, "send_message_to_user", message="x", attachments=[str(tmp_path / "a.txt")])
        await call(client, "chat_history", peer_id=PEER)
        await call(client, "commit_memory", content="x")
        await call(client, "recall_memory")
        await call(client, "list_peers")
        await call(client, "get_workspace_info")
        await asyncio.to_thread(until, "the first beat", platform.beats)
        await asyncio.to_thread(until, "the first poll", lambda: platform.asked(f"/workspaces/{ID}/activity"))

    drive(command, member(platform, tmp_path, TMPDIR=str(tmp_path)), test)
    paths = {request.path.partition("?")[0] for request in platform.requests}
    assert len(paths) >= 12, paths
    for request in platform.requests:
        assert request.headers["origin"] == platform.url, request.path
        assert request.headers["authorization"] == "Bearer t0ken", request.path
    posted = [r for r in platform.requests if r.body is not None and not r.path.startswith("/registry/")]
    assert {r.headers.get("x-workspace-id") for r in posted} == {ID}


@both
def test_secrets_that_the_platform_sends_are_kept(platform: Platform, tmp_path: Path, command: list[str]) -> None:
    first = {"status": "registered", "auth_token": "first", "platform_inbound_secret": "s1"}
    platform.at["/registry/register"] = answer(first)
    platform.at["/registry/heartbeat"] = answer({"status": "ok", "platform_inbound_secret": "s2"})

    def kept(name: str) -> str:
        path = tmp_path / "configs" / name
        return path.read_text() if path.exists() else ""

    async def test(client: ClientSession) -> None:
        await asyncio.to_thread(until, "the second secret is kept", lambda: kept(".platform_inbound_secret") == "s2")

    drive(command, member(platform, tmp_path), test)
    assert kept(".auth_token") == "first"
    assert (tmp_path / "configs" / ".auth_token").stat().st_mode & 0o777 == 0o600
    (beat, *_) = platform.beats()
    assert beat.headers["authorization"] == "Bearer first"


@both
def test_who_it_says_to_be(platform: Platform, tmp_path: Path, command: list[str]) -> None:
    named = {"MOLECULE_AGENT_NAME": "Ada", "MOLECULE_AGENT_DESCRIPTION": "computes", "MOLECULE_AGENT_SKILLS": "add, multiply"}
    run(command, member(platform, tmp_path, **named))
    (registered,) = platform.asked("/registry/register")
    assert registered.body["agent_card"] == {
        "name": "Ada",
        "description": "computes",
        "skills": [{"name": "add"}, {"name": "multiply"}],
    }
    assert (registered.body["url"], registered.body["delivery_mode"]) == ("", "poll")


@both
def test_its_lines_are_the_message_and_nothing_else(platform: Platform, tmp_path: Path, command: list[str]) -> None:
    platform.at["/registry/register"] = answer({"status": "registered"})
    platform.at["/registry/heartbeat"] = answer({"error": "invalid workspace auth token"}, 401)
    failed = (
        "[molecule-mcp] molecule-mcp: heartbeat HTTP 401 (auth failure 1/3) — token may be revoked. "
        "Will retry; if persistent, regenerate from canvas → Tokens.\n"
    )
    with line(command, member(platform, tmp_path, MOLECULE_MCP_DISABLE_INBOX="1")) as client:
        client.begin()
        until("it tells of the failure", lambda: client.said)
        assert client.said == [failed]
    verbose = member(platform, tmp_path, MOLECULE_MCP_DISABLE_INBOX="1", MOLECULE_MCP_VERBOSE="1")
    with line(command, verbose) as client:
        client.begin()
        until("it tells of the failure", lambda: failed in client.said)
        assert f"[molecule-mcp] molecule-mcp: registered workspace {ID}\n" in client.said
        assert all(said.startswith("[molecule-mcp] ") and "\x1b" not in said for said in client.said), client.said


@both
def test_a_rejection_by_403_exits_3_and_silence_goes_on(platform: Platform, tmp_path: Path, command: list[str]) -> None:
    platform.at["/registry/register"] = answer({"error": "no"}, 403)
    done = run(command, member(platform, tmp_path))
    assert done.returncode == 3 and "register rejected with HTTP 403 — the token in" in done.stderr
    unreachable = {**member(platform, tmp_path), "PLATFORM_URL": "http://127.0.0.1:9"}
    done = run(command, unreachable)
    assert done.returncode == 0 and "molecule-mcp: register failed, going on: " in done.stderr


@both
def test_how_long_it_advises_to_wait(platform: Platform, tmp_path: Path, command: list[str]) -> None:
    for given, said in [("0", None), ("61", "wait_for_message(timeout_secs=60)")]:
        with line(command, member(platform, tmp_path, MOLECULE_MCP_POLL_TIMEOUT_SECS=given)) as client:
            instructions = client.begin()["instructions"]
            assert (said in instructions) if said else ("wait_for_message" not in instructions)


@both
def test_every_revision_of_the_protocol_is_spoken(platform: Platform, tmp_path: Path, command: list[str]) -> None:
    for revision in ["2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"]:
        with line(command, member(platform, tmp_path, MOLECULE_MCP_DISABLE_INBOX="1")) as client:
            assert client.begin(revision)["protocolVersion"] == revision
            client.say({"jsonrpc": "2.0", "id": 2, "method": "tools/list"})
            assert len(client.hear()["result"]["tools"]) == 12


def test_the_newest_revision_has_no_beginning(platform: Platform, tmp_path: Path) -> None:
    platform.at[f"/workspaces/{ID}/activity"] = log([])
    said = {
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    with line(COMMAND, member(platform, tmp_path)) as client:
        for number, (method, more) in enumerate(
            [("server/discover", {}), ("tools/list", {}), ("tools/call", {"name": "inbox_peek", "arguments": {}})]
        ):
            client.say({"jsonrpc": "2.0", "id": number, "method": method, "params": {"_meta": said, **more}})
            answered = client.hear()
            assert answered["id"] == number and "error" not in answered, answered
        assert answered["result"]["content"] == [{"type": "text", "text": "[]"}]


@both
def test_a_blocked_tool_holds_up_neither_beats_nor_others(platform: Platform, tmp_path: Path, command: list[str]) -> None:
    platform.at["/registry/heartbeat"] = answer({"status": "ok", "next_heartbeat_secs": 1})
    platform.at[f"/registry/discover/{PEER}"] = answer({"id": PEER, "name": "Ada"})
    platform.at[f"/workspaces/{PEER}/a2a"] = Answer(never=True)
    platform.at[f"/registry/{ID}/peers"] = answer([])

    async def test(client: ClientSession) -> None:
        blocked = asyncio.create_task(call(client, "delegate_task", workspace_id=PEER, task="x"))
        waiting = asyncio.create_task(call(client, "wait_for_message", timeout_secs=300))
        await asyncio.to_thread(until, "it is blocked", lambda: platform.asked(f"/workspaces/{PEER}/a2a"))
        before = len(platform.beats())
        await asyncio.to_thread(until, "three more beats", lambda: len(platform.beats()) >= before + 3)
        assert (await call(client, "list_peers")).startswith("You have no peers")
        assert not blocked.done() and not waiting.done()
        blocked.cancel()
        waiting.cancel()

    drive(command, member(platform, tmp_path), test)


def test_a_closed_standard_input_ends_it(platform: Platform, tmp_path: Path) -> None:
    # The interpreter has opened something else in its place by then; the binary finds it at its end.
    for command, code, said in [(PYTHON, 2, "standard input"), (COMMAND, 0, "")]:
        shell = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *command]
        done = subprocess.run(shell, env=member(platform, tmp_path), capture_output=True, timeout=PATIENCE, check=False)
        assert done.returncode == code and said in done.stderr.decode(), done


def test_messages_of_peers_are_pushed_with_who_they_are_from(platform: Platform, tmp_path: Path) -> None:
    unknown = "8f9619ff-8b86-d011-b42d-00cf4fc964ff"
    rows: list[dict[str, object]] = [
        {
            "id": f"a{n}", "source_id": source, "method": "message/send", "created_at": f"2026-01-01T00:00:0{n}Z",
            "request_body": {"params": {"message": {"parts": [{"kind": "text", "text": f"text {n}"}]}}},
        }
        for n, source in enumerate([PEER, PEER, unknown, unknown, "../admin", ID])
    ]
    platform.at[f"/workspaces/{ID}/activity"] = log(rows)
    platform.at[f"/registry/discover/{PEER}"] = answer({"id": PEER, "name": "Ada", "role": "engineer", "url": ""})
    platform.at[f"/registry/discover/{unknown}"] = answer({"error": "no"}, 500)
    with line(COMMAND, member(platform, tmp_path)) as client:
        client.begin()
        pushed = [client.hear()["params"] for _ in range(5)]
    assert [message["content"] for message in pushed] == [f"text {n}" for n in range(5)]
    common = {"source": "molecule", "kind": "peer_agent", "method": "message/send"}
    for n, message in enumerate(pushed):
        meta = {**common, "activity_id": f"a{n}", "ts": f"2026-01-01T00:00:0{n}Z", "peer_id": ["", PEER, unknown][(n < 2) or (n < 4) * 2]}
        if n < 2:
            meta |= {"peer_name": "Ada", "peer_role": "engineer"}
        if n < 4:
            meta["agent_card_url"] = f"{platform.url}/registry/discover/{meta['peer_id']}"
        assert message["meta"] == meta
    # What was found is believed for a while, and that nothing was as well.
    for peer in [PEER, unknown]:
        assert len(platform.asked(f"/registry/discover/{peer}")) == 1


def test_what_the_platform_answers_is_told(platform: Platform, tmp_path: Path) -> None:
    peers, discover, own = f"/registry/{ID}/peers", f"/registry/discover/{PEER}", f"/workspaces/{ID}"

    async def test(client: ClientSession) -> None:
        for given, said in [
            (answer({}, 401), "No peers found. The platform rejected the token (HTTP 401): it may be revoked."),
            (answer({}, 403), "No peers found. The platform rejected the token (HTTP 403): it may be revoked."),
            (answer({}, 404), "No peers found. The platform does not know this workspace (HTTP 404): it may be deleted."),
            (answer({}, 502), "No peers found. The platform failed (HTTP 502): try again later."),
            (answer({"error": "odd"}, 418), "No peers found. HTTP 418: odd"),
            (answer({}), "No peers found. The answer was not a list."),
            (answer([]), "You have no peers in the platform registry. (No parent, no children, no siblings registered.)"),
        ]:
            platform.at[peers] = given
            assert await call(client, "list_peers") == said
        for given, said in [
            (answer({"name": "Ada", "status": "offline"}), f"Error: workspace {PEER} is offline"),
            (answer({}, 503), f"Error: workspace {PEER} is offline"),
            (answer({"status": "paused"}, 503), f"Error: workspace {PEER} is paused"),
            (answer({}, 401), "Error: the platform rejected the token of this workspace (HTTP 401): it may be revoked"),
        ]:
            platform.at[discover] = given
            assert await call(client, "delegate_task", workspace_id=PEER, task="x") == said
        platform.at[own] = answer({"error": "workspace not found"}, 404)
        assert json.loads(await call(client, "get_workspace_info")) == {"error": "not found"}
        platform.at[own] = answer({"error": "workspace removed"}, 410)
        hint = "Workspace was deleted on the platform. Regenerate workspace + token from the canvas → Tokens tab."
        assert json.loads(await call(client, "get_workspace_info")) == {
            "error": "removed", "id": ID, "removed_at": None, "hint": hint,
        }
        platform.at[f"{own}/notify"] = answer({"error": "no"}, 500)
        assert (await call(client, "send_message_to_user", message="x")).startswith("Error: platform returned 500")
        rows = [{"id": "new"}, {"id": "old"}]
        platform.at[f"{own}/activity"] = answer(rows)
        history = await call(client, "chat_history", peer_id=PEER.upper(), limit=999, before_ts="2026-01-01T00:00:00Z")
        assert json.loads(history) == rows[::-1]
        asked = platform.asked(f"{own}/activity")[-1].path
        assert asked.endswith(f"?peer_id={PEER}&limit=500&before_ts=2026-01-01T00%3A00%3A00Z")
        platform.at[f"{own}/activity"] = answer({}, 502)
        assert await call(client, "chat_history", peer_id=PEER) == "Error: chat_history returned HTTP 502"

    drive(COMMAND, member(platform, tmp_path, MOLECULE_MCP_DISABLE_INBOX="1"), test)


def test_a_task_is_sent_again_under_one_id_while_its_agent_is_woken(platform: Platform, tmp_path: Path) -> None:
    a2a = f"/workspaces/{PEER}/a2a"
    answers = [
        answer({"error": "waking", "waking": True, "retry_after": 15}, 503),
        answer({"error": "workspace has no URL", "status": "provisioning"}, 503),
        answer({"error": {"code": -32601, "message": "Method not found"}}),
        answer({"result": {"message": {"parts": [{"text": "four"}]}}}),
    ]
    platform.at[f"/registry/discover/{PEER}"] = answer({"error": "workspace not available", "status": "hibernated"}, 503)
    platform.at[a2a] = lambda _: answers.pop(0)

    async def test(client: ClientSession) -> None:
        assert await call(client, "delegate_task", workspace_id=PEER, task="two and two?") == "four"

    drive(COMMAND, member(platform, tmp_path), test)
    sent = platform.asked(a2a)
    assert len({request.body["params"]["message"]["messageId"] for request in sent}) == 1
    assert [request.body["method"] for request in sent] == ["message/send"] * 3 + ["SendMessage"]
    assert [request.headers.get("a2a-version") for request in sent] == [None, None, None, "1.0"]


TASK = {"workspace_id": PEER, "task": "two and two?"}
GIVE = {"name": "delegate_task", "arguments": TASK}


def answers_four(platform: Platform) -> None:
    platform.at[f"/registry/discover/{PEER}"] = answer({"id": PEER, "name": "Ada"})
    platform.at[f"/workspaces/{PEER}/a2a"] = answer({"result": {"parts": [{"kind": "text", "text": "four"}]}})


def test_the_log_holds_no_reply_up(platform: Platform, tmp_path: Path) -> None:
    answers_four(platform)
    platform.at[f"/workspaces/{ID}/activity"] = Answer(never=True)

    async def test(client: ClientSession) -> None:
        # Less than a report may take.
        assert await asyncio.wait_for(call(client, "delegate_task", **TASK), 4) == "four"

    drive(COMMAND, member(platform, tmp_path, MOLECULE_MCP_DISABLE_INBOX="1"), test)


def test_the_log_says_what_was_said_in_its_order_and_what_it_refuses_is_told(platform: Platform, tmp_path: Path) -> None:
    answers_four(platform)
    platform.at[f"/workspaces/{ID}/activity"] = answer({"error": "too long"}, 413)
    with line(COMMAND, member(platform, tmp_path, MOLECULE_MCP_DISABLE_INBOX="1")) as client:
        client.begin()
        client.say({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": GIVE})
        assert client.hear()["result"]["content"][0]["text"] == "four"
        until("both are told", lambda: sum("kept in the log: HTTP 413: too long" in said for said in client.said) == 2)
    reports = [request.body for request in platform.asked(f"/workspaces/{ID}/activity")]
    assert [report["activity_type"] for report in reports] == ["a2a_send", "a2a_receive"]
    assert [report["summary"] for report in reports] == ["Delegating to Ada: two and two?", "Ada replied: four"]


def test_a_proxy_is_gone_through_and_not_for_this_host(platform: Platform, tmp_path: Path) -> None:
    """The platform plays the proxy: what is asked of one holds the whole address."""
    away = member(platform, tmp_path, HTTP_PROXY=platform.url, MOLECULE_MCP_DISABLE_INBOX="1")
    run(COMMAND, {**away, "PLATFORM_URL": "http://platform.example"})
    (registered, *_) = platform.requests
    assert registered.path == "http://platform.example/registry/register"
    platform.requests.clear()
    run(COMMAND, {**away, "PLATFORM_URL": "http://platform.example", "NO_PROXY": "platform.example"})
    assert not platform.requests
    run(COMMAND, away)
    assert platform.asked("/registry/register"), "this host needs no proxy"
    wrong = run(COMMAND, {**away, "ALL_PROXY": "socks5h://127.0.0.1:1080"})
    assert wrong.returncode == 2 and "only http and https are spoken" in wrong.stderr
    wrong = run(COMMAND, {**away, "SSL_CERT_FILE": str(tmp_path / "none.pem")})
    assert wrong.returncode == 2 and "SSL_CERT_FILE cannot be read" in wrong.stderr


def test_the_older_names_start_it(platform: Platform, tmp_path: Path) -> None:
    import sys

    with line([sys.executable, "-m", "molecule_runtime.a2a_mcp_server"], member(platform, tmp_path)) as client:
        client.begin()
        tool = {"name": "inbox_peek", "arguments": {}}
        client.say({"jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": tool})
        (said,) = client.hear()["result"]["content"]
        assert said["text"].startswith("Error: inbox polling is not enabled in this runtime.")
    assert not platform.requests, "it neither registers nor beats"
    done = run([sys.executable, "-m", "molecule_runtime.mcp_cli"], member(platform, tmp_path))
    assert done.returncode == 0 and platform.asked("/registry/register")


