"""Every tool of ``molecule-mcp``, called by the official client, against a real server with real agents beside it."""

import asyncio
import json
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import ClientSession

from .conftest import PATIENCE, Server, running, until
from .test_bridge import drive as drive_at_the_server
from .test_mcp import ID, PYTHON, TOOLS, both, call, drive, variables


def text(said: str) -> dict[str, object]:
    """What is sent to an agent."""
    message = {"role": "user", "messageId": str(uuid.uuid4()), "parts": [{"kind": "text", "text": said}]}
    return {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": message}}


def send(server: Server, to: dict[str, str], said: str, sender: dict[str, str] | None = None) -> httpx.Response:
    """Says something to a workspace, as the user or as another workspace."""
    headers = {}
    if sender:
        headers = {"X-Workspace-ID": sender["WORKSPACE_ID"], "Authorization": f"Bearer {sender['MOLECULE_WORKSPACE_TOKEN']}"}
    return server.http.post(f"/workspaces/{to['WORKSPACE_ID']}/a2a", json=text(said), headers=headers)


async def eventually(client: ClientSession, name: str, wanted: str, **arguments: Any) -> Any:
    """What a tool answers as JSON, once it holds ``wanted``."""
    async with asyncio.timeout(PATIENCE):
        while wanted not in (said := await call(client, name, **arguments)):
            await asyncio.sleep(0.05)
    return json.loads(said)


SCHEMAS: dict[str, tuple[dict[str, str], list[str]]] = {
    "delegate_task": ({"workspace_id": "string", "task": "string"}, ["workspace_id", "task"]),
    "delegate_task_async": ({"workspace_id": "string", "task": "string"}, ["workspace_id", "task"]),
    "check_task_status": ({"workspace_id": "string", "task_id": "string"}, ["workspace_id", "task_id"]),
    "list_peers": ({}, []),
    "get_workspace_info": ({}, []),
    "send_message_to_user": ({"message": "string", "attachments": "array"}, ["message"]),
    "wait_for_message": ({"timeout_secs": "number"}, []),
    "inbox_peek": ({"limit": "integer"}, []),
    "inbox_pop": ({"activity_id": "string"}, ["activity_id"]),
    "chat_history": ({"peer_id": "string", "limit": "integer", "before_ts": "string"}, ["peer_id"]),
    "commit_memory": ({"content": "string", "scope": "string"}, ["content"]),
    "recall_memory": ({"query": "string", "scope": "string"}, []),
}
"""What each tool takes, and what of it must be given: clients and prompts lean on it."""


@both
def test_what_the_tools_take(server: Server, tmp_path: Path, command: list[str]) -> None:
    async def test(client: ClientSession) -> None:
        tools = (await client.list_tools()).tools
        assert [tool.name for tool in tools] == list(SCHEMAS)
        for tool in tools:
            schema = tool.input_schema
            kinds = {name: property["type"] for name, property in schema["properties"].items()}
            assert (schema["type"], kinds, schema["required"]) == ("object", *SCHEMAS[tool.name]), tool.name
            assert tool.description and all(property["description"] for property in schema["properties"].values())
        by_name = {tool.name: tool.input_schema["properties"] for tool in tools}
        assert by_name["commit_memory"]["scope"]["enum"] == ["LOCAL", "TEAM", "GLOBAL"]
        assert by_name["recall_memory"]["scope"]["enum"] == ["LOCAL", "TEAM", "GLOBAL", ""]
        assert by_name["send_message_to_user"]["attachments"]["items"] == {"type": "string"}

    drive(command, variables(tmp_path, **server.create("takes")), test)


@both
def test_work_is_given_to_an_agent_that_answers(open_server: Server, tmp_path: Path, command: list[str]) -> None:
    asker, worker = open_server.create("asker"), open_server.create("worker")
    worker_id = worker["WORKSPACE_ID"]

    async def test(client: ClientSession) -> None:
        async def give(task: str) -> Any:
            said = await call(client, "delegate_task_async", workspace_id=worker_id, task=task)
            return json.loads(said)

        peers = await call(client, "list_peers")
        assert f"- worker (ID: {worker_id}, status: online, role: )" in peers.splitlines()
        # The agent repeats what it is told.
        assert await call(client, "delegate_task", workspace_id=worker_id, task="two and two") == "two and two"
        said = await call(client, "delegate_task", workspace_id=ID, task="x")
        assert said == f"Error: workspace {ID} not found or not accessible (check access control)"

        given = await give("three and three")
        assert (given["workspace_id"], given["status"]) == (worker_id, "delegated")
        task = given["delegation_id"]
        row = await eventually(client, "check_task_status", '"completed"', workspace_id=worker_id, task_id=task)
        assert (row["delegation_id"], row["target_id"]) == (task, worker_id)
        assert "three and three" in json.dumps(row)
        again = (await give("three and three"))["delegation_id"]
        assert again != task, "the same task later is another"
        await eventually(client, "check_task_status", '"completed"', workspace_id=worker_id, task_id=again)
        listed = json.loads(await call(client, "check_task_status", workspace_id=worker_id, task_id=""))
        assert listed["count"] == len(listed["delegations"]) >= 2
        unknown = json.loads(await call(client, "check_task_status", workspace_id=worker_id, task_id="none"))
        assert unknown == {"status": "not_found", "delegation_id": "none"}
        said = await call(client, "delegate_task_async", workspace_id=ID, task="x")
        assert said.startswith("Error: delegation failed with status 403: "), said

        history = json.loads(await call(client, "chat_history", peer_id=worker_id))
        times = [row["created_at"] for row in history]
        assert times == sorted(times)
        kinds = [row["activity_type"] for row in history if row["method"] == "message/send"]
        assert kinds == ["a2a_send", "a2a_receive"]
        assert history[0]["request_body"]["parts"][0]["text"] == "two and two"
        assert history[1]["response_body"]["text"] == "two and two"
        (newest,) = json.loads(await call(client, "chat_history", peer_id=worker_id, limit=1))
        assert newest == history[-1]
        before = json.loads(await call(client, "chat_history", peer_id=worker_id, before_ts=history[1]["created_at"]))
        assert before == history[:1]
        assert (await call(client, "chat_history", peer_id=worker_id, before_ts="soon")).startswith("Error: ")
        # What the workspace said itself is nothing that waits for it.
        assert await call(client, "inbox_peek") == "[]"

    with open_server.agent(worker, tmp_path / "worker"):
        drive(command, variables(tmp_path, **asker), test)


@both
def test_messages_come_from_the_user_and_from_peers(open_server: Server, tmp_path: Path, command: list[str]) -> None:
    workspace, peer = open_server.create("listens"), open_server.create("speaks")

    async def test(client: ClientSession) -> None:
        none = json.loads(await call(client, "wait_for_message", timeout_secs=0.1))
        assert none == {"timeout": True, "timeout_secs": 0.1}
        waiting = asyncio.create_task(call(client, "wait_for_message", timeout_secs=60))
        queued = await asyncio.to_thread(send, open_server, workspace, "Good morning")
        assert queued.json()["status"] == "queued", queued.text
        first = json.loads(await waiting)
        assert (first["kind"], first["peer_id"], first["text"]) == ("canvas_user", "", "Good morning")
        await asyncio.to_thread(send, open_server, workspace, "Good evening", peer)
        messages = await eventually(client, "inbox_peek", "Good evening")
        assert [message["text"] for message in messages] == ["Good morning", "Good evening"]
        assert (messages[1]["kind"], messages[1]["peer_id"]) == ("peer_agent", peer["WORKSPACE_ID"])
        assert json.loads(await call(client, "inbox_peek", limit=1)) == messages[:1]
        for message in messages:
            popped = json.loads(await call(client, "inbox_pop", activity_id=message["activity_id"]))
            assert popped == {"removed": True, "activity_id": message["activity_id"]}
        again = json.loads(await call(client, "inbox_pop", activity_id=first["activity_id"]))
        assert again == {"removed": False, "activity_id": first["activity_id"]}
        assert await call(client, "inbox_peek") == "[]"
        history = json.loads(await call(client, "chat_history", peer_id=peer["WORKSPACE_ID"]))
        assert [row["id"] for row in history] == [messages[1]["activity_id"]]

    drive(command, variables(tmp_path, **workspace), test)


@both
def test_what_is_remembered_is_found(server: Server, tmp_path: Path, command: list[str]) -> None:
    lead = server.create("remembers")
    member = server.create("remembers-too", parent_id=lead["WORKSPACE_ID"])

    async def leads(client: ClientSession) -> None:
        kept = json.loads(await call(client, "commit_memory", content=f"the tea is green, key sk-{'x' * 30}"))
        assert (kept["success"], kept["scope"]) == (True, "LOCAL") and kept["id"]
        for scope in ["TEAM", "GLOBAL"]:
            said = json.loads(await call(client, "commit_memory", content=f"the {scope} likes tea", scope=scope))
            assert (said["success"], said["scope"]) == (True, scope)
        assert await call(client, "recall_memory", query="green") == "[LOCAL] the tea is green, key [REDACTED]"
        assert await call(client, "recall_memory", query="tea", scope="TEAM") == "[TEAM] the TEAM likes tea"
        assert await call(client, "recall_memory", query="coffee") == "No memories found."

    async def follows(client: ClientSession) -> None:
        assert await call(client, "recall_memory", query="tea", scope="TEAM") == "[TEAM] the TEAM likes tea"
        said = await call(client, "commit_memory", content="mine for all", scope="GLOBAL")
        assert said.startswith("Error: RBAC — "), said
        assert await call(client, "commit_memory", content=" ") == "Error: content is required"

    drive(command, variables(tmp_path / "lead", **lead), leads)
    drive(command, variables(tmp_path / "member", **member), follows)


@both
def test_what_a_workspace_is_told_of_itself(server: Server, tmp_path: Path, command: list[str]) -> None:
    workspace = server.create("is-told")

    async def test(client: ClientSession) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        info = json.loads(await call(client, "get_workspace_info"))
        assert (info["name"], info["status"]) == ("is-told", "online")
        assert await call(client, "send_message_to_user", message="Done") == "Message sent to user"
        assert await call(client, "send_message_to_user", message="") == "Error: message is required"
        (row,) = server.http.get(f"/workspaces/{workspace['WORKSPACE_ID']}/activity").json()
        assert (row["method"], row["summary"]) == ("notify", "Agent message: Done")
        server.delete(workspace)
        info = json.loads(await call(client, "get_workspace_info"))
        assert (info["error"], info["id"]) == ("removed", workspace["WORKSPACE_ID"])
        assert info["removed_at"] and info["hint"]

    drive(command, variables(tmp_path, **workspace), test)


def test_no_peers_are_told_as_such(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    with Server(tmp_path_factory.mktemp("alone")) as alone:
        workspace = alone.create("alone")

        async def test(client: ClientSession) -> None:
            said = await call(client, "list_peers")
            assert said == (
                "You have no peers in the platform registry. (No parent, no children, no siblings registered.)"
            )
            alone.stop()
            said = await call(client, "list_peers")
            assert said.startswith("No peers found. The platform cannot be reached: ")

        drive(PYTHON, variables(tmp_path, **workspace), test)


NEWEST = """
import os, uvicorn
from a2a.helpers import get_message_text, new_text_message
from a2a.server.agent_execution import AgentExecutor
from a2a.server.request_handlers import DefaultRequestHandler
from a2a.server.routes import create_jsonrpc_routes
from a2a.server.tasks import InMemoryTaskStore
from a2a.types import AgentCard
from starlette.applications import Starlette
import molecule, socket

class Echo(AgentExecutor):
    async def execute(self, context, event_queue):
        await event_queue.enqueue_event(new_text_message(f"newest: {get_message_text(context.message)}"))
    async def cancel(self, context, event_queue):
        pass

card = AgentCard(name="newest", description="speaks A2A 1.0 alone")
handler = DefaultRequestHandler(agent_executor=Echo(), task_store=InMemoryTaskStore(), agent_card=card)
app = Starlette(routes=create_jsonrpc_routes(handler, "/"))
listener = socket.create_server(("127.0.0.1", 0))
molecule.Agent().register({"name": "newest", "skills": []}, url=f"http://127.0.0.1:{listener.getsockname()[1]}/")
uvicorn.Server(uvicorn.Config(app, log_level="warning")).run(sockets=[listener])
"""


def test_an_agent_of_the_newest_protocol_alone_is_given_work(open_server: Server, tmp_path: Path) -> None:
    asker, newest = open_server.create("asks-newest"), open_server.create("newest")
    peer = newest["WORKSPACE_ID"]

    async def beside(client: ClientSession) -> None:
        assert await call(client, "delegate_task", workspace_id=peer, task="hello") == "newest: hello"
        given = json.loads(await call(client, "delegate_task_async", workspace_id=peer, task="later"))
        task = given["delegation_id"]
        row = await eventually(client, "check_task_status", '"completed"', workspace_id=peer, task_id=task)
        assert "newest: later" in json.dumps(row)

    async def at_the_server(client: ClientSession) -> None:
        assert await call(client, "delegate_task", workspace_id=peer, task="bridge") == "newest: bridge"
        given = json.loads(await call(client, "delegate_task_async", workspace_id=peer, task="later"))
        task = given["task_id"]
        row = await eventually(client, "check_task_status", '"completed"', workspace_id=peer, task_id=task)
        assert row == {"task_id": task, "status": "completed", "target_id": peer, "result": "newest: later"}

    with running([sys.executable, "-c", NEWEST], variables(tmp_path / "newest", **newest)):
        until("it is online", lambda: open_server.status(newest) == "online")
        drive(PYTHON, variables(tmp_path, **asker), beside)
        drive_at_the_server(open_server, asker, at_the_server)


@pytest.fixture
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs agents itself."""
    with Server(tmp_path_factory.mktemp("running-server"), development=True, provisioner="process") as server:
        yield server
        for workspace in server.http.get("/workspaces").json():
            server.delete({"WORKSPACE_ID": workspace["id"]})


def test_an_agent_that_hibernates_is_woken_by_a_task(running_server: Server, tmp_path: Path) -> None:
    answer = running_server.http.post("/workspaces", json={"name": "sleeper"})
    assert answer.status_code == 201, answer.text
    sleeper = {"WORKSPACE_ID": answer.json()["id"]}
    until("it is online", lambda: running_server.status(sleeper) == "online")
    answer = running_server.http.post(f"/workspaces/{sleeper['WORKSPACE_ID']}/hibernate")
    assert answer.status_code == 200, answer.text
    until("it hibernates", lambda: running_server.status(sleeper) == "hibernated")

    async def test(client: ClientSession) -> None:
        said = await call(client, "delegate_task", workspace_id=sleeper["WORKSPACE_ID"], task="wake up")
        assert said == "wake up"
        assert running_server.status(sleeper) == "online"

    drive(PYTHON, variables(tmp_path, **running_server.create("wakes")), test)
