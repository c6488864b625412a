"""Files on their way to an agent and back, through a real server: to ``molecule agent``, and to an agent in Python."""

import asyncio
import contextlib
import os
import re
import socket
import sys
from collections.abc import Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from mcp import ClientSession

import molecule
from molecule.files import FilesApp

from .conftest import Server, running, until
from .test_examples import ANSWERS
from .test_mcp import ID, PYTHON, call, drive, variables

MIB = 1024 * 1024


class Member:
    """A workspace with an agent that keeps its files below ``folder``."""

    def __init__(self, server: Server, workspace: dict[str, str], folder: Path) -> None:
        self.server, self.workspace, self.folder = server, workspace, folder
        self.path = f"/workspaces/{workspace['WORKSPACE_ID']}"

    def upload(self, *files: tuple[str, bytes], field: str = "files") -> httpx.Response:
        return self.server.http.post(f"{self.path}/chat/uploads", files=[(field, file) for file in files])

    def download(self, path: str) -> httpx.Response:
        return self.server.http.get(f"{self.path}/chat/download", params={"path": path})

    @property
    def kept(self) -> list[str]:
        uploads = self.folder / "workspace" / ".molecule" / "chat-uploads"
        return sorted(os.listdir(uploads)) if uploads.exists() else []


@pytest.fixture(params=["molecule agent", "python"])
def member(request: pytest.FixtureRequest, open_server: Server, tmp_path: Path) -> Iterator[Member]:
    workspace = open_server.create("files")
    (tmp_path / "workspace").mkdir()
    member = Member(open_server, workspace, tmp_path)
    with contextlib.ExitStack() as stack:
        if request.param == "python":
            with socket.socket() as free:
                free.bind(("127.0.0.1", 0))
                port = free.getsockname()[1]
            environment = variables(tmp_path, PORT=str(port), **workspace)
            stack.enter_context(running([sys.executable, "-c", ANSWERS], environment))
            until("it is online", lambda: open_server.status(workspace) == "online")
        else:
            stack.enter_context(open_server.agent(workspace, tmp_path))
        yield member


def test_files_are_sent_and_read(member: Member) -> None:
    sent = member.upload(("my plan.txt", b"first this"), ("../../\U0001f980.png", bytes(range(256))))
    assert sent.status_code == 200, sent.text
    plan, crab = sent.json()["files"]
    assert (plan["name"], plan["size"], plan["mimeType"]) == ("my_plan.txt", 10, "text/plain")
    assert re.fullmatch(r"workspace:/workspace/\.molecule/chat-uploads/[0-9a-f]{32}-my_plan\.txt", plan["uri"])
    assert (crab["name"], crab["size"]) == ("_.png", 256)
    for file, contents in [(plan, b"first this"), (crab, bytes(range(256)))]:
        read = member.download(file["uri"].removeprefix("workspace:"))
        assert (read.status_code, read.content) == (200, contents)
        assert read.headers["content-length"] == str(len(contents))
        assert read.headers["content-disposition"].startswith("attachment; filename=")
    assert len(member.kept) == 2
    place = member.folder / "workspace" / ".molecule" / "chat-uploads" / member.kept[0]
    assert place.stat().st_mode & 0o777 == 0o600


def test_limits_and_refusals_come_through(member: Member) -> None:
    (member.folder / "configs" / ".auth_token").write_text("t0ken")
    rows: list[tuple[Callable[[], httpx.Response], int, str]] = [
        (lambda: member.upload(("big.bin", bytes(25 * MIB + 1))), 413, "big.bin exceeds per-file limit (25 MB)"),
        (lambda: member.upload(("a", b"x"), field="other"), 400, "expected at least one 'files' field"),
        (lambda: member.upload(*[("a", b"x")] * 65), 400, "failed to parse multipart form"),
        (lambda: member.download("/workspace/none"), 404, "file not found"),
        (lambda: member.download("/workspace"), 400, "path is not a regular file"),
        (lambda: member.download("/configs/.auth_token"), 404, "file not found"),
        (lambda: member.download("/configs/.platform_inbound_secret"), 404, "file not found"),
        (lambda: member.download("/etc/passwd"), 400, "path must be under /configs, /workspace, /home, or /plugins"),
    ]
    for ask, status, error in rows:
        answer = ask()
        assert (answer.status_code, answer.json()) == (status, {"error": error})
    assert member.kept == []
    whole = member.upload(("a.bin", bytes(25 * MIB)))
    assert whole.status_code == 200, whole.text
    read = member.download(whole.json()["files"][0]["uri"].removeprefix("workspace:"))
    assert len(read.content) == 25 * MIB


def test_links_in_the_way_are_not_followed(member: Member) -> None:
    elsewhere = member.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "secret").write_text("nobody's business")
    (member.folder / "workspace" / "link").symlink_to(elsewhere / "secret")
    (member.folder / "workspace" / ".molecule").symlink_to(elsewhere)
    assert member.download("/workspace/link").json() == {"error": "path is not a regular file"}
    assert member.download("/workspace/.molecule/secret").json() == {"error": "invalid path"}
    refused = member.upload(("a", b"x"))
    assert refused.status_code == 500 and refused.json()["error"] == "failed to prepare uploads dir"
    assert [path.name for path in elsewhere.iterdir()] == ["secret"]


def test_only_the_platform_may_ask(member: Member) -> None:
    workspaces = member.server.http.get("/workspaces").json()
    (url,) = [known["url"] for known in workspaces if known["id"] == member.workspace["WORKSPACE_ID"]]
    token = member.workspace["MOLECULE_WORKSPACE_TOKEN"]
    with httpx.Client(base_url=url) as outside:
        for authorization in [None, "Bearer wrong", f"Bearer {token}"]:
            headers = {"Authorization": authorization} if authorization else {}
            for answer in [
                outside.get("/internal/file/read", params={"path": "/workspace/a"}, headers=headers),
                outside.get("/internal/file/read?path=/workspace/a&path=/workspace/b", headers=headers),
                outside.post("/internal/chat/uploads/ingest", files={"files": b"x"}, headers=headers),
            ]:
                assert (answer.status_code, answer.json()) == (401, {"error": "unauthorized"})
    assert member.kept == []


def test_an_agent_sends_files_along_with_its_words(member: Member) -> None:
    plan = member.folder / "workspace" / "plan.txt"
    plan.write_text("first this, then that")

    async def test(client: ClientSession) -> None:
        async def send(*paths: Any) -> str:
            return await call(client, "send_message_to_user", message="Here", attachments=[str(path) for path in paths])

        assert await send(plan) == "Message sent to user with 1 attachment(s)"
        assert await send(plan, plan.with_name("none")) == f"Error: attachment not found: {plan.with_name('none')}"

    # Another process registers and beats.
    environment = variables(member.folder, TMPDIR=str(plan.parent), MOLECULE_MCP_DISABLE_HEARTBEAT="1", **member.workspace)
    drive(PYTHON, environment, test)
    (row,) = member.server.http.get(f"{member.path}/activity").json()
    (part,) = row["response_body"]["parts"]
    file = part["file"]
    assert (file["name"], file["size"]) == ("plan.txt", 21)
    assert member.download(file["uri"].removeprefix("workspace:")).text == "first this, then that"


def test_what_was_said_can_be_read_by_whoever_has_the_token(open_server: Server, tmp_path: Path) -> None:
    workspace = open_server.create("transcript")
    with open_server.agent(workspace, tmp_path):
        workspaces = open_server.http.get("/workspaces").json()
        (url,) = [known["url"] for known in workspaces if known["id"] == workspace["WORKSPACE_ID"]]
        message = {"role": "user", "parts": [{"kind": "text", "text": "Good morning"}]}
        request = {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": message}}
        path = f"/workspaces/{workspace['WORKSPACE_ID']}/a2a"
        assert open_server.http.post(path, json=request).status_code == 200
        headers = {"Authorization": f"Bearer {workspace['MOLECULE_WORKSPACE_TOKEN']}"}
        with httpx.Client(base_url=url, headers=headers) as outside:
            said = [{"role": role, "text": "Good morning"} for role in ["user", "agent"]]
            assert outside.get("/transcript").json() == {"lines": said, "cursor": 2, "more": False}
            page = outside.get("/transcript", params={"since": 0, "limit": 1}).json()
            assert page == {"lines": said[:1], "cursor": 1, "more": True}
            wrong = outside.get("/transcript", params={"since": "x"})
            assert (wrong.status_code, wrong.json()) == (400, {"error": "since and limit must be integers"})
            assert outside.get("/transcript?since=2&since=x").json() == {"lines": [], "cursor": 2, "more": False}
            wrong = outside.get("/transcript?since=1&since=2", headers={"Authorization": "Bearer wrong"})
            assert (wrong.status_code, wrong.json()) == (401, {"error": "unauthorized"})


def test_a_transcript_is_shown_where_there_is_one(tmp_path: Path) -> None:
    agent = molecule.Agent(workspace_id=ID, platform_url="http://127.0.0.1:9", token="t0ken", configs_dir=tmp_path / "configs")
    asked: list[tuple[int, int]] = []

    def lines(since: int, limit: int) -> object:
        asked.append((since, limit))
        return {"lines": ["a"]}

    async def ask(app: FilesApp, path: str, token: str = "t0ken") -> tuple[int, object]:
        transport = httpx.ASGITransport(app=app)
        async with httpx.AsyncClient(transport=transport, base_url="http://agent") as client:
            answer = await client.get(path, headers={"Authorization": f"Bearer {token}"})
            return answer.status_code, answer.json()

    async def test() -> None:
        app, silent = FilesApp(agent, transcript=lines), FilesApp(agent)
        assert await ask(app, "/transcript") == (200, {"lines": ["a"]})
        assert await ask(app, "/agent/transcript?since=7&limit=5000") == (200, {"lines": ["a"]})
        assert asked == [(0, 100), (7, 1000)]
        assert await ask(app, "/transcript", "wrong") == (401, {"error": "unauthorized"})
        assert await ask(app, "/transcript?since=x") == (400, {"error": "since and limit must be integers"})
        for app, path in [(silent, "/transcript"), (app, "/"), (app, "/internal/chat/uploads/ingest")]:
            assert await ask(app, path) == (404, {"error": "not found"})

    asyncio.run(test())


def test_an_upload_that_breaks_off_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "workspace").mkdir()
    agent = molecule.Agent(workspace_id=ID, platform_url="http://127.0.0.1:9", token="t0ken", configs_dir=tmp_path / "configs")
    agent.save_inbound_secret("s3cret")
    kept = tmp_path / "workspace" / ".molecule" / "chat-uploads"
    part = b'--B\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n' + bytes(MIB)
    headers = [(b"authorization", b"Bearer s3cret"), (b"content-type", b"multipart/form-data; boundary=B")]
    scope: dict[str, Any] = {"type": "http", "method": "POST", "path": "/internal/chat/uploads/ingest", "headers": headers}
    pieces: Iterator[dict[str, Any]] = iter([{"type": "http.request", "body": part, "more_body": True}])

    async def receive() -> MutableMapping[str, Any]:
        if piece := next(pieces, None):
            return piece
        await asyncio.to_thread(until, "it is being written", lambda: kept.exists() and os.listdir(kept))
        return {"type": "http.disconnect"}

    async def send(_: MutableMapping[str, Any]) -> None:
        raise AssertionError("nobody is there any more")

    asyncio.run(FilesApp(agent)(scope, receive, send))
    until("it is gone", lambda: not os.listdir(kept))
