"""The files of a workspace over HTTP: an ASGI application to mount beside the one that answers messages.

It answers ``POST /internal/chat/uploads/ingest`` and ``GET /internal/file/read``, by which the platform sends files to the
workspace and reads them, and ``GET /transcript`` where one is told of.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, MutableMapping
from os import PathLike
from typing import Any
from urllib.parse import parse_qs

from molecule._molecule import Agent, FileAnswer, Files

__all__ = ["FilesApp"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class FilesApp:
    """Serves the files of the workspace of ``agent`` to its platform, which proves itself with the inbound secret.

    ``root`` is the folder that holds ``workspace``, ``configs``, ``home`` and ``plugins``: without it the one around the folder
    of the secrets, where that is called ``configs`` and has ``workspace`` beside it, else ``/`` as in a container.
    ``transcript`` gives the lines of the session from ``since`` on, at most ``limit``, as anything that JSON can hold; whoever
    asks for it proves itself with the token of the workspace. The secrets that agents keep are never sent.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        root: str | PathLike[str] | None = None,
        transcript: Callable[[int, int], object] | None = None,
    ) -> None:
        self._files = Files(agent, root=root)
        self._transcript = transcript

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        method, path = scope["method"], scope["path"]
        # It may be mounted anywhere.
        if method == "POST" and path.endswith("/internal/chat/uploads/ingest"):
            await self._ingest(headers, receive, send)
        elif method == "GET" and path.endswith("/internal/file/read"):
            await self._read(headers, _query(scope), send)
        elif method == "GET" and path.endswith("/transcript") and self._transcript:
            await self._show_transcript(headers, _query(scope), send)
        else:
            await _say(send, 404, {"error": "not found"})

    async def _ingest(self, headers: dict[bytes, bytes], receive: Receive, send: Send) -> None:
        kind, length = headers.get(b"content-type"), headers.get(b"content-length", b"")
        upload = self._files.upload(
            headers.get(b"authorization"),
            kind.decode("latin-1") if kind else None,
            int(length) if length.isdigit() else None,
        )
        more = True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            more = await asyncio.to_thread(upload.write, message.get("body", b"")) and message.get("more_body", False)
        await _answer(send, await asyncio.to_thread(upload.finish))

    async def _read(self, headers: dict[bytes, bytes], query: dict[str, str], send: Send) -> None:
        path = query.get("path", "")
        await _answer(send, await asyncio.to_thread(self._files.read, headers.get(b"authorization"), path))

    async def _show_transcript(self, headers: dict[bytes, bytes], query: dict[str, str], send: Send) -> None:
        asked = headers.get(b"authorization"), query.get("since"), query.get("limit")
        page = await asyncio.to_thread(self._files.transcript_page, *asked)
        if isinstance(page, FileAnswer):
            return await _answer(send, page)
        assert self._transcript
        await _say(send, 200, await asyncio.to_thread(self._transcript, *page))


def _query(scope: MutableMapping[str, Any]) -> dict[str, str]:
    asked = parse_qs(scope.get("query_string", b"").decode("latin-1"), keep_blank_values=True)
    return {name: values[0] for name, values in asked.items()}


async def _answer(send: Send, answer: FileAnswer) -> None:
    await send({"type": "http.response.start", "status": answer.status, "headers": answer.headers})
    while piece := await asyncio.to_thread(answer.next):
        await send({"type": "http.response.body", "body": piece, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def _say(send: Send, status: int, body: object) -> None:
    text = json.dumps(body, separators=(",", ":")).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(text)).encode())]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": text})
