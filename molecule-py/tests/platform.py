"""A platform that answers what it is told to, however wrong."""

import json
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Answer:
    """What to answer, or that nothing is to be answered at all."""

    status: int = 200
    body: bytes = b'{"status":"ok"}'
    headers: Mapping[str, str] = field(default_factory=dict)
    never: bool = False


@dataclass(frozen=True)
class Request:
    """What was asked, and when."""

    at: float
    path: str
    headers: Mapping[str, str]
    body: Any


def answer(value: object, status: int = 200, **headers: str) -> Answer:
    """``value`` as JSON."""
    named = {name.replace("_", "-"): text for name, text in headers.items()}
    return Answer(status, json.dumps(value).encode(), named)


class Platform:
    """Answers what stands in ``at`` for a path, or what that makes of the request, else the next one of ``answers``, and the
    last one from then on."""

    def __init__(self) -> None:
        self.answers: list[Answer] = [Answer()]
        self.at: dict[str, Answer | Callable[[Request], Answer]] = {}
        self.requests: list[Request] = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        platform = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                self.do_POST()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                is_json = headers.get("content-type", "").startswith("application/json")
                said = json.loads(body) if is_json else body or None
                request = Request(time.monotonic(), self.path, headers, said)
                with platform.lock:
                    platform.requests.append(request)
                    given = platform.at.get(self.path.partition("?")[0])
                    if given is None:
                        given = platform.answers[0] if len(platform.answers) == 1 else platform.answers.pop(0)
                if not isinstance(given, Answer):
                    given = given(request)
                if given.never:
                    platform.stopped.wait()
                    return
                self.send_response(given.status)
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(given.body)))
                self.end_headers()
                self.wfile.write(given.body)

            def log_message(self, format: str, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    def beats(self) -> list[Request]:
        """The heartbeats so far."""
        with self.lock:
            return [request for request in self.requests if request.path == "/registry/heartbeat"]

    def asked(self, path: str) -> list[Request]:
        """The requests of ``path`` so far, whatever their query."""
        with self.lock:
            return [request for request in self.requests if request.path.partition("?")[0] == path]

    def stop(self) -> None:
        """Ends the platform."""
        self.stopped.set()
        self.server.shutdown()
        self.server.server_close()
