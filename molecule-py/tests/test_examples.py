"""The examples of the documentation, word for word."""

import asyncio
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

from mcp import ClientSession

from .conftest import PATIENCE, Server, running, until
from .test_bridge import drive as drive_at_the_server
from .test_mcp import COMMAND, TOOLS, call, drive, session, variables

PAGE = (Path(__file__).parents[2] / "docs" / "bring-your-own-agent.md").read_text()


def examples(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)


LOOP, ANSWERS = examples("python")
(CONFIGURATION,) = examples("json")


def test_the_plain_loop(server: Server, tmp_path: Path) -> None:
    workspace = server.create("plain-loop")
    with running([sys.executable, "-c", LOOP], variables(tmp_path, **workspace)) as process:
        until("it is online", lambda: server.status(workspace) == "online")
        assert process.poll() is None


def test_the_agent_that_answers(open_server: Server, tmp_path: Path) -> None:
    workspace = open_server.create("answers")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with running([sys.executable, "-c", ANSWERS], variables(tmp_path, PORT=str(port), **workspace)):
        until("it is online", lambda: open_server.status(workspace) == "online")
        message = {"role": "user", "parts": [{"kind": "text", "text": "Good morning"}]}
        request = {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": message}}
        answer = open_server.http.post(f"/workspaces/{workspace['WORKSPACE_ID']}/a2a", json=request)
        assert answer.status_code == 200, answer.text
        assert answer.json()["result"]["parts"][0]["text"] == "You said: Good morning"

        asker = open_server.create("asks")

        async def test(client: ClientSession) -> None:
            said = await call(client, "delegate_task", workspace_id=workspace["WORKSPACE_ID"], task="Good evening")
            assert said == "You said: Good evening"

        drive_at_the_server(open_server, asker, test)
        drive(COMMAND, variables(tmp_path / "asker", **asker), test)


def test_the_configuration(server: Server, tmp_path: Path) -> None:
    workspace = server.create("configured")
    (configured,) = json.loads(CONFIGURATION)["mcpServers"].values()
    assert set(configured["env"]) == set(workspace)
    command = Path(sys.executable).parent / configured["command"]

    async def main() -> None:
        async with asyncio.timeout(PATIENCE), session([str(command)], variables(tmp_path, **workspace)) as client:
            assert {tool.name for tool in (await client.list_tools()).tools} == TOOLS

    asyncio.run(main())
    assert server.status(workspace) == "online"


def test_the_examples_are_typed_strictly(tmp_path: Path) -> None:
    for name, source in [("loop", LOOP), ("answers", ANSWERS)]:
        (tmp_path / f"{name}.py").write_text(source)
    arguments = [sys.executable, "-m", "mypy", "--strict", "loop.py", "answers.py"]
    done = subprocess.run(arguments, cwd=tmp_path, capture_output=True, text=True, check=False, env=dict(os.environ))
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_tool_is_told_of() -> None:
    assert {name for name in re.findall(r"`([a-z_]+)`", PAGE) if name in TOOLS} == TOOLS
