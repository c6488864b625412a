"""What the tests run against: a real server, and platforms that misbehave."""

import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from .platform import Platform

PATIENCE = 60.0
"""How many seconds anything that must happen may take on a busy machine."""


def until(what: str, look: Callable[[], Any]) -> Any:
    """Waits until ``look`` finds something, and returns it."""
    deadline = time.monotonic() + PATIENCE
    while not (found := look()):
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)
    return found


class Server:
    """A running ``molecule serve`` with its operator's client."""

    def __init__(self, home: Path, *, development: bool = False, provisioner: str = "none") -> None:
        self.operator = "the-operator-of-these-tests-and-nobody-else"
        environment = {
            "PATH": os.defpath,
            "HOME": str(home),
            "MOLECULE_DATA_DIR": str(home / "data"),
            "RATE_LIMIT": "1000000",
        }
        # In development agents on this host are called, and nobody shows a token.
        environment |= {"MOLECULE_ENV": "development"} if development else {"ADMIN_TOKEN": self.operator}
        arguments = [binary(), "serve", "--listen", "127.0.0.1:0", "--provisioner", provisioner]
        self.process = subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        self.url = ""
        for line in self.process.stderr:
            if found := re.search(r"listening .*?address=\"?([0-9.:]+)", line):
                self.url = f"http://{found[1]}"
                break
        assert self.url, "the server does not start"
        # Its log goes nowhere from here on, and never fills the pipe.
        threading.Thread(target=self.process.stderr.read, daemon=True).start()
        self.http = httpx.Client(
            base_url=self.url,
            headers={} if development else {"Authorization": f"Bearer {self.operator}"},
            timeout=PATIENCE,
        )

    def create(self, name: str, **more: object) -> dict[str, str]:
        """A new external workspace, as the variables that its agent is told."""
        answer = self.http.post("/workspaces", json={"name": name, "external": True, **more})
        assert answer.status_code == 201, answer.text
        connection = answer.json()["connection"]
        return {
            "WORKSPACE_ID": connection["workspace_id"],
            "PLATFORM_URL": self.url,
            "MOLECULE_WORKSPACE_TOKEN": connection["auth_token"],
        }

    def status(self, workspace: dict[str, str]) -> str:
        """The status of a workspace."""
        answer = self.http.get(f"/workspaces/{workspace['WORKSPACE_ID']}")
        return "removed" if answer.status_code == 410 else str(answer.json()["status"])

    @contextlib.contextmanager
    def agent(self, workspace: dict[str, str], folder: Path, *arguments: str) -> Iterator[None]:
        """``molecule agent`` as the agent of a workspace, online."""
        environment = {"PATH": os.defpath, "HOME": str(folder), "CONFIGS_DIR": str(folder / "configs"), **workspace}
        with running([binary(), "agent", "--port", "0", "--log", "off", *arguments], environment):
            until("the agent is online", lambda: self.status(workspace) == "online")
            yield

    def delete(self, workspace: dict[str, str]) -> None:
        """Removes a workspace for good."""
        answer = self.http.delete(f"/workspaces/{workspace['WORKSPACE_ID']}", params={"confirm": "true"})
        assert answer.status_code == 200, answer.text

    def stop(self) -> None:
        """Ends the server, also where it has ended already."""
        self.http.close()
        self.process.terminate()
        self.process.wait(PATIENCE)

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()


@contextlib.contextmanager
def running(command: list[str], environment: dict[str, str]) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the test."""
    process = subprocess.Popen(command, env=environment)
    try:
        yield process
    finally:
        process.kill()
        process.wait(PATIENCE)


def binary() -> str:
    """The program under test, as ``make`` built it."""
    built = Path(__file__).parents[2] / "molecule"
    return os.environ.get("MOLECULE_BINARY") or str(built)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One server for all tests; each has workspaces of its own."""
    server = Server(tmp_path_factory.mktemp("server"))
    yield server
    server.stop()


@pytest.fixture(scope="session")
def open_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that calls agents on this host."""
    server = Server(tmp_path_factory.mktemp("open-server"), development=True)
    yield server
    server.stop()


@pytest.fixture
def platform() -> Iterator[Platform]:
    """A platform that answers as the test says."""
    platform = Platform()
    yield platform
    platform.stop()


class Script:
    """Runs Python in a process with nothing but the variables it is given."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.variables = {"PATH": os.defpath, "HOME": str(folder), "CONFIGS_DIR": str(folder / "configs")}

    @property
    def configs(self) -> Path:
        """Where the process keeps its secrets."""
        return self.folder / "configs"

    def run(self, source: str, **variables: str) -> str:
        """What ``source`` prints; it must not fail."""
        done = subprocess.run(
            [sys.executable, "-W", "error", "-c", source],
            env={**self.variables, **variables},
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture
def script(tmp_path: Path) -> Script:
    """Runs Python apart from this process and from whoever runs the tests."""
    (tmp_path / "configs").mkdir()
    return Script(tmp_path)
