"""``molecule-mcp`` and ``molecule mcp`` under the official client, against a real server."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from mcp import ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.types import TextContent

from .conftest import PATIENCE, Server, binary, until
from .platform import Answer, Platform, Request, answer

ID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"

TOOLS = {
    "delegate_task",
    "delegate_task_async",
    "check_task_status",
    "list_peers",
    "get_workspace_info",
    "send_message_to_user",
    "wait_for_message",
    "inbox_peek",
    "inbox_pop",
    "chat_history",
    "commit_memory",
    "recall_memory",
}

PYTHON = [str(Path(sys.executable).parent / "molecule-mcp")]
COMMAND = [binary(), "mcp"]

both = pytest.mark.parametrize("command", [PYTHON, COMMAND], ids=["molecule-mcp", "molecule mcp"])


def variables(folder: Path, **more: str) -> dict[str, str]:
    return {"PATH": os.defpath, "HOME": str(folder), "CONFIGS_DIR": str(folder / "configs"), **more}


@asynccontextmanager
async def session(command: list[str], environment: dict[str, str]) -> AsyncIterator[ClientSession]:
    parameters = StdioServerParameters(command=command[0], args=command[1:], env=environment)
    async with stdio_client(parameters) as (read, write), ClientSession(read, write) as client:
        await client.initialize()
        yield client


async def call(client: ClientSession, name: str, **arguments: Any) -> str:
    result = await client.call_tool(name, arguments)
    (content,) = result.content
    assert isinstance(content, TextContent)
    return content.text


def drive(command: list[str], environment: dict[str, str], test: Callable[[ClientSession], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), session(command, environment) as client:
            await test(client)

    asyncio.run(main())


def run(command: list[str], environment: dict[str, str], said: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, env=environment, input=said, capture_output=True, text=True, timeout=PATIENCE, check=False
    )


@both
def test_one_command_makes_a_member_of_the_fleet(server: Server, tmp_path: Path, command: list[str]) -> None:
    workspace = server.create("by-mcp")

    async def test(client: ClientSession) -> None:
        listed = (await client.list_tools()).tools
        assert {tool.name for tool in listed} == TOOLS
        info = json.loads(await call(client, "get_workspace_info"))
        assert (info["id"], info["status"]) == (workspace["WORKSPACE_ID"], "online")
        assert info["agent_card"]["name"] == f"molecule-mcp-{workspace['WORKSPACE_ID'][:8]}"

    drive(command, variables(tmp_path, **workspace), test)


def test_what_it_says_of_itself(server: Server, tmp_path: Path) -> None:
    workspace = server.create("says")
    client = subprocess.Popen(
        COMMAND, env=variables(tmp_path, **workspace), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert client.stdin is not None and client.stdout is not None

    def ask(request: object) -> Any:
        assert client.stdin is not None and client.stdout is not None
        client.stdin.write(json.dumps(request) + "\n")
        client.stdin.flush()
        return json.loads(client.stdout.readline())

    parameters = {"protocolVersion": "2024-11-05", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    said = ask({"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": parameters})["result"]
    assert said["protocolVersion"] == "2024-11-05"
    assert said["capabilities"] == {"tools": {"listChanged": False}, "experimental": {"claude/channel": {}}}
    assert said["serverInfo"] == {"name": "a2a-delegation", "version": "1.0.0"}
    assert "wait_for_message(timeout_secs=2)" in said["instructions"]
    client.stdin.write('{"jsonrpc": "2.0", "method": "notifications/initialized"}\nthis is no JSON\n')
    assert ask({"jsonrpc": "2.0", "id": 2, "method": "ping"}) == {"jsonrpc": "2.0", "id": 2, "result": {}}
    unknown = ask({"jsonrpc": "2.0", "id": 3, "method": "no/such"})
    assert unknown["error"]["code"] == -32601
    tool = ask({"jsonrpc": "2.0", "id": 4, "method": "tools/call", "params": {"name": "nothing", "arguments": {}}})
    assert tool["result"]["content"] == [{"type": "text", "text": "Unknown tool: nothing"}]
    client.stdin.close()
    assert client.wait(PATIENCE) == 0


@both
def test_what_is_missing_is_named_and_exits_2(tmp_path: Path, command: list[str]) -> None:
    done = run(command, variables(tmp_path, PLATFORM_URL="http://127.0.0.1:9"))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines()[-1] == (
        "Currently missing: WORKSPACE_ID, MOLECULE_WORKSPACE_TOKEN (or CONFIGS_DIR/.auth_token)"
    )
    assert "MOLECULE_MCP_DISABLE_HEARTBEAT" in done.stderr


@both
def test_a_rejected_token_exits_3(server: Server, tmp_path: Path, command: list[str]) -> None:
    workspace = {**server.create("rejected"), "MOLECULE_WORKSPACE_TOKEN": "wrong"}
    done = run(command, variables(tmp_path, **workspace))
    assert done.returncode == 3
    assert done.stderr.strip().endswith(
        "register rejected with HTTP 401 — the token in MOLECULE_WORKSPACE_TOKEN is invalid for workspace "
        f"{workspace['WORKSPACE_ID']}. Regenerate from the canvas → Tokens tab."
    )


@both
def test_a_removed_workspace_exits_3_and_other_failures_go_on(
    platform: Platform, tmp_path: Path, command: list[str]
) -> None:
    environment = variables(
        tmp_path, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken"
    )
    platform.answers = [answer({"error": "workspace removed"}, 410)]
    done = run(command, environment)
    assert done.returncode == 3 and "was deleted on the platform" in done.stderr
    platform.answers = [answer({}, 500)]
    done = run(command, environment)
    # Its client closed the input at once.
    assert done.returncode == 0
    assert "[molecule-mcp] molecule-mcp: register failed, going on: HTTP 500" in done.stderr
    assert "t0ken" not in done.stderr


@both
def test_a_client_that_speaks_something_else_is_told(platform: Platform, tmp_path: Path, command: list[str]) -> None:
    environment = variables(
        tmp_path, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken"
    )
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as client:
        assert client.stdin is not None and client.stderr is not None
        client.stdin.write('{"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 1}}\n')
        client.stdin.flush()
        # Its input stays open.
        assert client.wait(PATIENCE) == 2
        assert "molecule-mcp: the client does not speak the Model Context Protocol: " in client.stderr.read()


@both
def test_files_are_no_client(platform: Platform, tmp_path: Path, command: list[str]) -> None:
    environment = variables(
        tmp_path, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken"
    )
    with (tmp_path / "file").open("w+") as file:
        done = subprocess.run(
            command, env=environment, stdin=file, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=PATIENCE, check=False
        )
    assert done.returncode == 2 and b"standard input is a file" in done.stderr


def test_without_heartbeat_it_neither_registers_nor_beats(platform: Platform, tmp_path: Path) -> None:
    environment = variables(
        tmp_path, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken"
    )

    async def test(client: ClientSession) -> None:
        assert len((await client.list_tools()).tools) == len(TOOLS)

    drive(COMMAND, {**environment, "MOLECULE_MCP_DISABLE_HEARTBEAT": "1"}, test)
    assert not [request for request in platform.requests if request.path.startswith("/registry")]

    async def beats(client: ClientSession) -> None:
        await asyncio.to_thread(until, "the first beat at once", platform.beats)

    drive(COMMAND, environment, beats)
    (registered,) = platform.asked("/registry/register")
    assert registered.body["delivery_mode"] == "poll"
    assert registered.body["agent_card"] == {"name": f"molecule-mcp-{ID[:8]}", "skills": []}
    (beat, *_) = platform.beats()
    assert beat.body == {
        "workspace_id": ID, "error_rate": 0.0, "sample_error": "", "active_tasks": 0, "uptime_seconds": 0,
    }


def test_wrong_arguments_are_told_and_nothing_ends(server: Server, tmp_path: Path) -> None:
    workspace = server.create("wrong-arguments")

    async def test(client: ClientSession) -> None:
        calls: list[tuple[str, dict[str, Any], str]] = [
            ("delegate_task", {}, "Error: workspace_id and task are required"),
            ("delegate_task", {"workspace_id": 5, "task": "x"}, "Error: workspace_id must be a string"),
            ("delegate_task", {"workspace_id": "../admin", "task": "x"}, "Error: workspace_id must be the id"),
            ("delegate_task", {"workspace_id": ID, "task": "x"}, f"Error: workspace {ID} not found or not accessible"),
            ("delegate_task_async", {"workspace_id": ID}, "Error: workspace_id and task are required"),
            ("send_message_to_user", {}, "Error: message is required"),
            ("wait_for_message", {"timeout_secs": "soon"}, "Error: timeout_secs must be a number"),
            ("inbox_peek", {"limit": -1}, "Error: limit must be a whole number"),
            ("inbox_pop", {}, "Error: activity_id is required"),
            ("chat_history", {}, "Error: peer_id is required"),
            ("chat_history", {"peer_id": ID, "before_ts": "yesterday"}, "Error: "),
            ("commit_memory", {}, "Error: content is required"),
            ("commit_memory", {"content": "x", "scope": "WORLD"}, "Error: scope must be"),
            ("recall_memory", {"scope": "WORLD"}, "Error: scope must be"),
            ("delegate_task", {"workspace_id": None, "task": None}, "Error: workspace_id and task are required"),
        ]
        for name, arguments, said in calls:
            assert (await call(client, name, **arguments)).startswith(said), name

    drive(COMMAND, variables(tmp_path, **workspace), test)


def test_peers_are_listed_and_history_and_words_to_the_user_are_kept(server: Server, tmp_path: Path) -> None:
    workspace, peer = server.create("talks"), server.create("listens")

    async def test(client: ClientSession) -> None:
        listed = await call(client, "list_peers")
        assert f"- listens (ID: {peer['WORKSPACE_ID']}, status: awaiting_agent, role: )" in listed.splitlines()
        assert await call(client, "send_message_to_user", message="Good morning") == "Message sent to user"
        assert await call(client, "chat_history", peer_id=peer["WORKSPACE_ID"]) == "[]"
        # It asks for its messages, once it is there.
        kept = await call(client, "delegate_task", workspace_id=peer["WORKSPACE_ID"], task="Say hello")
        assert kept.startswith("Queued: ")

    drive(COMMAND, variables(tmp_path, **workspace), test)
    rows = server.http.get(f"/workspaces/{workspace['WORKSPACE_ID']}/activity").json()
    # The newest come first: what was said to the peer, and that its reply will come later.
    assert [row["activity_type"] for row in rows] == ["a2a_receive", "a2a_send", "a2a_receive"]
    assert rows[0]["summary"] == f"{peer['WORKSPACE_ID']} has the task" and "response_body" not in rows[0]
    assert rows[2]["method"] == "notify"


def test_files_go_along_with_words_to_the_user(platform: Platform, tmp_path: Path) -> None:
    uploads, notify = f"/workspaces/{ID}/chat/uploads", f"/workspaces/{ID}/notify"
    environment = variables(tmp_path, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken")
    # The folder for temporary files is elsewhere.
    (project := tmp_path / "project").mkdir()
    environment["TMPDIR"] = str(project)
    (project / "plan.txt").write_text("first this, then that")
    (project / "b.bin").write_bytes(b"\x00\xff")
    (tmp_path / "private.txt").write_text("nobody's business")

    async def test(client: ClientSession) -> None:
        async def send(*names: str) -> str:
            paths = [str(project / name) for name in names]
            return await call(client, "send_message_to_user", message="Here", attachments=paths)

        kept = [{"uri": f"workspace:/w/{n}", "name": n, "mimeType": "text/plain", "size": 2} for n in "ab"]
        platform.at[uploads] = answer({"files": kept})
        assert await send("plan.txt", "b.bin") == "Message sent to user with 2 attachment(s)"
        (upload,), (told,) = platform.asked(uploads), platform.asked(notify)
        assert upload.headers["content-type"].startswith("multipart/form-data; boundary=")
        parts = [b'name="files"; filename="plan.txt"', b"first this, then that", b'filename="b.bin"', b"\x00\xff"]
        assert all(part in upload.body for part in parts)
        assert told.body == {"message": "Here", "attachments": kept}

        platform.at[uploads] = answer({"error": "workspace url not registered yet"}, 503)
        assert await send("b.bin") == "Error: chat/uploads returned 503: workspace url not registered yet"
        assert await send("none") == f"Error: attachment not found: {project / 'none'}"
        assert (await send("../private.txt")).startswith("Error: attachment not allowed: ")
        said = await call(client, "send_message_to_user", message="Here", attachments="plan.txt")
        assert said == "Error: attachments must be a list of strings"
        assert len(platform.asked(notify)) == 1

    for command in [PYTHON, COMMAND]:
        platform.requests.clear()
        drive(command, environment, test)


def test_calls_run_side_by_side(server: Server, tmp_path: Path) -> None:
    workspace = server.create("side-by-side")

    async def test(client: ClientSession) -> None:
        waiting = asyncio.create_task(call(client, "wait_for_message", timeout_secs=300))
        assert (await call(client, "list_peers")) != ""
        assert not waiting.done()
        waiting.cancel()
        said = json.loads(await call(client, "wait_for_message", timeout_secs=0))
        assert said == {"timeout": True, "timeout_secs": 0.0}

    drive(COMMAND, variables(tmp_path, **workspace), test)


def test_without_the_inbox_its_tools_say_so(server: Server, tmp_path: Path) -> None:
    workspace = server.create("no-inbox")

    async def test(client: ClientSession) -> None:
        for name, arguments in [("wait_for_message", {}), ("inbox_peek", {}), ("inbox_pop", {"activity_id": "a"})]:
            said = await call(client, name, **arguments)
            assert said.startswith("Error: inbox polling is not enabled in this runtime."), name

    drive(COMMAND, variables(tmp_path, MOLECULE_MCP_DISABLE_INBOX="1", **workspace), test)


def test_a_token_deleted_while_it_runs_is_told_and_the_server_goes_on(server: Server, tmp_path: Path) -> None:
    workspace = server.create("deleted-meanwhile")

    async def test(client: ClientSession) -> None:
        server.delete(workspace)
        said = await call(client, "list_peers")
        assert said.startswith("No peers found. ") and ("401" in said or "404" in said or "410" in said)
        assert len((await client.list_tools()).tools) == len(TOOLS)

    drive(COMMAND, variables(tmp_path, **workspace), test)


def test_work_is_given_to_others(platform: Platform, tmp_path: Path) -> None:
    peer = "7f9619ff-8b86-d011-b42d-00cf4fc964ff"
    discover, a2a = f"/registry/discover/{peer}", f"/workspaces/{peer}/a2a"
    delegate, delegations = f"/workspaces/{ID}/delegate", f"/workspaces/{ID}/delegations"
    message = {"kind": "message", "role": "agent", "parts": [{"kind": "text", "text": "four"}]}

    async def test(client: ClientSession) -> None:
        async def give() -> str:
            return await call(client, "delegate_task", workspace_id=peer.upper(), task="two and two?")

        platform.at[discover] = answer({"id": peer, "name": "Ada", "url": "http://127.0.0.1:9"})
        for given, said in [
            (answer({"jsonrpc": "2.0", "id": "1", "result": message}), "four"),
            (answer({"queued": True}, 202), "Queued: Ada is busy or asks for its messages"),
            (answer({"status": "queued"}), "Queued: Ada is busy or asks for its messages"),
            (answer({"error": "agent failed"}), "DELEGATION FAILED to Ada: [A2A_ERROR] Agent: agent failed [target="),
            (answer({"error": "no budget"}, 402), "DELEGATION FAILED to Ada: [A2A_ERROR] HTTP 402: no budget [target="),
        ]:
            platform.at[a2a] = given
            assert (await give()).startswith(said)
        (asked, *_) = platform.asked(a2a)
        assert asked.headers["x-workspace-id"] == ID
        assert asked.body["params"]["message"]["parts"] == [{"kind": "text", "text": "two and two?"}]
        for given, said in [
            (answer({"error": "workspace not available", "status": "offline"}, 503), f"Error: workspace {peer} is offline"),
            (answer({}, 403), f"Error: workspace {peer} not found or not accessible (check access control)"),
            (answer({}, 404), f"Error: workspace {peer} not found or not accessible (check access control)"),
        ]:
            platform.at[discover] = given
            assert await give() == said

        async def later() -> str:
            return await call(client, "delegate_task_async", workspace_id=peer, task="two and two?")

        for status in [202, 200]:
            platform.at[delegate] = answer({"delegation_id": "d1", "status": "delegated", "target_id": peer}, status)
            assert json.loads(await later())["delegation_id"] == "d1"
        first, second = platform.asked(delegate)
        assert first.body["target_id"] == peer and len(first.body["idempotency_key"]) == 32
        assert first.body["idempotency_key"] != second.body["idempotency_key"]
        platform.at[delegate] = answer({"error": "x" * 300}, 400)
        assert await later() == f"Error: delegation failed with status 400: {'x' * 200}"

        row = {"delegation_id": "d1", "target_id": peer, "status": "completed"}
        platform.at[delegations] = answer([row])
        assert json.loads(await call(client, "check_task_status", workspace_id=peer, task_id="d1")) == row
        listed = json.loads(await call(client, "check_task_status", workspace_id=peer, task_id=""))
        assert listed == {"delegations": [row], "count": 1}
        unknown = json.loads(await call(client, "check_task_status", workspace_id=peer, task_id="d2"))
        assert unknown == {"status": "not_found", "delegation_id": "d2"}
        platform.at[delegations] = answer({}, 500)
        said = await call(client, "check_task_status", workspace_id=peer, task_id="d1")
        assert said == "Error: failed to check delegations (500)"

    drive(COMMAND, variables(tmp_path, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken"), test)


def test_memories_are_kept_without_secrets_and_found(platform: Platform, tmp_path: Path) -> None:
    memories = f"/workspaces/{ID}/memories"

    async def test(client: ClientSession) -> None:
        platform.at[memories] = answer({"id": "m1", "scope": "TEAM", "namespace": "general"}, 201)
        said = await call(client, "commit_memory", content=f"the key: sk-{'x' * 30}", scope="TEAM")
        assert json.loads(said) == {"success": True, "id": "m1", "scope": "TEAM"}
        assert platform.asked(memories)[0].body == {"content": "the key: [REDACTED]", "scope": "TEAM"}
        platform.at[memories] = answer({"error": "only root workspaces can write GLOBAL memories"}, 403)
        said = await call(client, "commit_memory", content="x", scope="GLOBAL")
        assert said == "Error: RBAC — only root workspaces can write GLOBAL memories"
        platform.at[memories] = answer([{"scope": "LOCAL", "content": "a"}, {"scope": "TEAM", "content": "b"}])
        assert await call(client, "recall_memory", query="a & b") == "[LOCAL] a\n[TEAM] b"
        assert platform.asked(memories)[-1].path == f"{memories}?q=a+%26+b&scope="
        platform.at[memories] = answer([])
        assert await call(client, "recall_memory") == "No memories found."
        platform.at[memories] = answer({"error": "search failed"}, 500)
        assert await call(client, "recall_memory") == "Error: search failed"

    drive(COMMAND, variables(tmp_path, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken"), test)


def log(rows: list[dict[str, object]]) -> Callable[[Request], Answer]:
    """The log of a workspace with these rows, oldest first, as the server shows it."""

    def read(request: Request) -> Answer:
        query = {name: values[0] for name, values in parse_qs(urlsplit(request.path).query).items()}
        limit = int(query["limit"])
        if "since_id" in query:
            behind = [row["id"] for row in rows].index(query["since_id"]) + 1
            return answer(rows[behind : behind + limit])
        newest_first = [row for row in reversed(rows) if str(row["created_at"]) < query.get("before_ts", "9")]
        return answer(newest_first[:limit])

    return read


def test_many_long_messages_come_one_after_the_other(platform: Platform, tmp_path: Path) -> None:
    """A page of them is longer than what is looked at; whoever writes to a workspace must not silence it."""
    long = {"parts": [{"kind": "text", "text": "x" * 1_000_000}]}
    rows: list[dict[str, object]] = [
        {"id": f"a{n:03}", "source_id": None, "method": "message/send", "request_body": long, "created_at": f"2026-01-01T00:00:{n:02}Z"}
        for n in range(45)
    ]
    platform.at[f"/workspaces/{ID}/activity"] = log(rows)

    async def test(client: ClientSession) -> None:
        for row in rows:
            assert json.loads(await call(client, "wait_for_message"))["activity_id"] == row["id"]
            await call(client, "inbox_pop", activity_id=row["id"])

    drive(COMMAND, variables(tmp_path, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken"), test)


def test_messages_are_pushed_wait_and_stay_until_they_are_popped(platform: Platform, tmp_path: Path) -> None:
    activity, workspace = f"/workspaces/{ID}/activity", f"/workspaces/{ID}"
    body = {"params": {"message": {"parts": [{"kind": "text", "text": "Good morning"}]}}}
    row: dict[str, object] = {"id": "a1", "source_id": None, "method": "message/send", "request_body": body, "created_at": "2026-01-01T00:00:00Z"}
    platform.at[activity] = log([row])
    environment = variables(tmp_path, WORKSPACE_ID=ID, PLATFORM_URL=platform.url, MOLECULE_WORKSPACE_TOKEN="t0ken")
    cursor = tmp_path / "configs" / ".mcp_inbox_cursor"

    async def first(client: ClientSession) -> None:
        message = json.loads(await call(client, "wait_for_message"))
        assert message == {
            "activity_id": "a1",
            "text": "Good morning",
            "peer_id": "",
            "kind": "canvas_user",
            "method": "message/send",
            "created_at": "2026-01-01T00:00:00Z",
        }
        platform.at[workspace] = answer({"error": "workspace removed", "id": ID, "removed_at": None, "hint": "gone"}, 410)
        info = json.loads(await call(client, "get_workspace_info"))
        assert info == {"error": "removed", "id": ID, "removed_at": None, "hint": "gone"}

    drive(COMMAND, environment, first)
    # Nothing lies before the message, which is still wanted however long ago it came.
    assert cursor.read_text() == "start"
    assert "since_secs=600" in platform.asked(activity)[0].path

    async def second(client: ClientSession) -> None:
        assert json.loads(await call(client, "wait_for_message"))["activity_id"] == "a1"
        assert [m["activity_id"] for m in json.loads(await call(client, "inbox_peek"))] == ["a1"]
        assert json.loads(await call(client, "inbox_pop", activity_id="a1")) == {"removed": True, "activity_id": "a1"}
        assert json.loads(await call(client, "inbox_pop", activity_id="a1")) == {"removed": False, "activity_id": "a1"}
        assert await call(client, "inbox_peek") == "[]"

    drive(COMMAND, environment, second)
    assert cursor.read_text() == "a1"

    client = subprocess.Popen(COMMAND, env={**environment, "CONFIGS_DIR": str(tmp_path)}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert client.stdin is not None and client.stdout is not None
    parameters = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    hello = {"jsonrpc": "2.0", "id": 1, "method": "initialize", "params": parameters}
    client.stdin.write(json.dumps(hello) + '\n{"jsonrpc": "2.0", "method": "notifications/initialized"}\n')
    client.stdin.flush()
    assert json.loads(client.stdout.readline())["id"] == 1
    pushed = json.loads(client.stdout.readline())
    assert pushed["method"] == "notifications/claude/channel"
    meta = {"source": "molecule", "kind": "canvas_user", "peer_id": "", "method": "message/send", "activity_id": "a1", "ts": "2026-01-01T00:00:00Z"}
    assert pushed["params"] == {"content": "Good morning", "meta": meta}
    client.stdin.close()
    assert client.wait(PATIENCE) == 0
