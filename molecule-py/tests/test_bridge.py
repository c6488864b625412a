"""The tools of the server under the official client, over streamable HTTP."""

import asyncio
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from mcp import ClientSession
from mcp.client.streamable_http import streamable_http_client

from .conftest import PATIENCE, Server
from .test_mcp import call

PAGE = (Path(__file__).parents[2] / "docs" / "mcp.md").read_text()

(EXAMPLE,) = re.findall(r"^```json\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)

TOOLS = {
    "delegate_task",
    "delegate_task_async",
    "check_task_status",
    "list_peers",
    "get_workspace_info",
    "commit_memory",
    "recall_memory",
}


@asynccontextmanager
async def session(server: Server, workspace: dict[str, str]) -> AsyncIterator[ClientSession]:
    """A client of the tools of a workspace."""
    # The example of the documentation, with the places that are to be filled in.
    text = EXAMPLE.replace("http://127.0.0.1:8080", server.url)
    text = text.replace("/ID/", f"/{workspace['WORKSPACE_ID']}/").replace("TOKEN", workspace["MOLECULE_WORKSPACE_TOKEN"])
    (configured,) = json.loads(text)["mcpServers"].values()
    url, headers = configured["url"], configured["headers"]
    async with (
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE) as http,
        streamable_http_client(url, http_client=http) as (read, write),
        ClientSession(read, write) as client,
    ):
        await client.initialize()
        yield client


def drive(server: Server, workspace: dict[str, str], test: Callable[[ClientSession], Awaitable[None]]) -> None:
    async def main() -> None:
        async with asyncio.timeout(PATIENCE), session(server, workspace) as client:
            await test(client)

    asyncio.run(main())


def test_every_tool_is_listed_and_called(server: Server) -> None:
    workspace, peer = server.create("asks-the-bridge"), server.create("beside-it")
    peer_id = peer["WORKSPACE_ID"]

    async def test(client: ClientSession) -> None:
        assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS
        info = json.loads(await call(client, "get_workspace_info"))
        assert (info["id"], info["name"]) == (workspace["WORKSPACE_ID"], "asks-the-bridge")
        assert peer_id in {listed["id"] for listed in json.loads(await call(client, "list_peers"))}
        assert (await call(client, "delegate_task", workspace_id=peer_id, task="Say hello")).startswith("Queued: ")
        given = json.loads(await call(client, "delegate_task_async", workspace_id=peer_id, task="Say hello"))
        assert (given["status"], given["target_id"]) == ("dispatched", peer_id)
        status = json.loads(await call(client, "check_task_status", workspace_id=peer_id, task_id=given["task_id"]))
        assert (status["task_id"], status["target_id"]) == (given["task_id"], peer_id)
        assert json.loads(await call(client, "commit_memory", content="tea, not coffee"))["success"]
        assert await call(client, "recall_memory", query="tea") == "[LOCAL] tea, not coffee"
        failed = await client.call_tool("delegate_task", {"workspace_id": 5, "task": "x"})
        assert failed.is_error and await call(client, "delegate_task", workspace_id=5) == "workspace_id must be a string"

    # One who asks for its messages.
    registered = server.http.post(
        "/registry/register",
        json={"id": peer_id, "url": "", "delivery_mode": "poll", "agent_card": {"name": "beside-it"}},
        headers={"Authorization": f"Bearer {peer['MOLECULE_WORKSPACE_TOKEN']}"},
    )
    assert registered.status_code == 200, registered.text
    drive(server, workspace, test)


def test_the_newest_revision_has_no_beginning(server: Server) -> None:
    workspace = server.create("newest-revision")
    revision = "2026-07-28"
    said = {
        "io.modelcontextprotocol/protocolVersion": revision,
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    headers = {
        "Authorization": f"Bearer {workspace['MOLECULE_WORKSPACE_TOKEN']}",
        "Accept": "application/json, text/event-stream",
        "MCP-Protocol-Version": revision,
    }

    def ask(method: str, **more: object) -> Any:
        body = {"jsonrpc": "2.0", "id": 1, "method": method, "params": {"_meta": said, **more}}
        named = {"Mcp-Method": method} | ({"Mcp-Name": str(more["name"])} if "name" in more else {})
        path = f"/workspaces/{workspace['WORKSPACE_ID']}/mcp"
        answer = server.http.post(path, json=body, headers=headers | named)
        assert answer.status_code == 200, answer.text
        return answer.json()["result"]

    assert revision in ask("server/discover")["supportedVersions"]
    assert {tool["name"] for tool in ask("tools/list")["tools"]} == TOOLS
    (text,) = ask("tools/call", name="list_peers", arguments={})["content"]
    assert text["type"] == "text"
