from collections.abc import Awaitable, Callable, Mapping
from os import PathLike
from types import TracebackType
from typing import Any, final

from typing_extensions import Self

__all__ = [
    "Agent",
    "FileAnswer",
    "Files",
    "HeartbeatLoop",
    "HeartbeatStatus",
    "Upload",
    "__version__",
    "auth_headers",
    "error_table",
    "get_token",
    "is_mcp_verbose",
    "redact",
    "refresh_cache",
    "run_mcp",
    "save_token",
    "self_source_headers",
]

__version__: str
"""The version of the package, which is that of the core it was built from."""

def get_token() -> str | None:
    """The token of the workspace: the one in the file ``.auth_token``, else ``MOLECULE_WORKSPACE_TOKEN``, else ``None``.

    It is found once and shared by everything in the process. The file lies in ``CONFIGS_DIR``, else in ``/configs`` where
    that can be written to, else in ``~/.molecule-workspace``. One that others can read is made private first.
    """

def save_token(token: str) -> None:
    """Uses ``token`` from now on and keeps it in the file, in one step and for the owner alone."""

def refresh_cache() -> str | None:
    """Forgets the token in memory, finds it anew, in the environment as it is now too, and returns it."""

def auth_headers() -> dict[str, str]:
    """The headers of a call to the platform: ``Origin`` when ``PLATFORM_URL`` is set, ``Authorization`` when there is a token."""

def self_source_headers(workspace_id: str) -> dict[str, str]:
    """``auth_headers()`` and who speaks.

    Every message that a workspace sends for itself carries these; without them it is recorded as typed by the user.
    """

def redact(text: str) -> str:
    """``text`` with ``[REDACTED]`` in the place of what looks like a secret. A net below care, not in its place."""

def error_table() -> list[tuple[str, str, str]]:
    """Every kind of error of the core with its class and code, for the tests."""

def is_mcp_verbose() -> bool:
    """Whether ``molecule-mcp`` is to log what happens and not only what is wrong."""

def run_mcp(tools_alone: bool) -> tuple[int, str]:
    """Runs ``molecule-mcp`` until its client is gone, and returns the exit code and what there is to say about it.

    With ``tools_alone`` it neither registers nor beats, and has no inbox.
    """

@final
class Agent:
    """One workspace as its agent sees it: its token, its headers, and its place on the platform.

    What is not given is read from ``WORKSPACE_ID``, ``PLATFORM_URL``, ``MOLECULE_WORKSPACE_TOKEN`` and ``CONFIGS_DIR``. A
    ``token`` given here goes before the file; one from the environment comes after it. Agents without ``token`` and
    ``configs_dir`` share the token of the process; give each of several workspaces a ``configs_dir`` of its own.
    ``timeout`` is in seconds, for each call.

    Raises ``InvalidInputError`` when a setting is missing or cannot be read.
    """

    def __new__(
        cls,
        *,
        workspace_id: str | None = None,
        platform_url: str | None = None,
        token: str | None = None,
        configs_dir: str | PathLike[str] | None = None,
        timeout: float = 10.0,
    ) -> Self: ...
    @property
    def workspace_id(self) -> str:
        """The workspace this agent is."""

    @property
    def platform_url(self) -> str:
        """Where the platform is, without a slash at the end."""

    def get_token(self) -> str | None:
        """The token this agent proves itself with, if there is one."""

    def save_token(self, token: str) -> None:
        """Uses ``token`` from now on, in running loops too, and keeps it in the file.

        It is in use even when the file cannot be written, which raises ``MoleculeError``.
        """

    def auth_headers(self) -> dict[str, str]:
        """The headers of a call to the platform: ``Origin``, and ``Authorization`` when there is a token."""

    def self_source_headers(self) -> dict[str, str]:
        """``auth_headers()`` and who speaks: for every message that the workspace sends for itself."""

    def register(self, card: Mapping[str, Any] | None = None, *, url: str | None = None) -> str | None:
        """Makes the workspace known, and says how the platform delivers its messages: ``push`` or ``poll``.

        With ``url`` the platform calls the agent there; without, the agent asks for its messages. ``card`` is the A2A card
        of the agent; without one it is made of ``MOLECULE_AGENT_NAME``, ``MOLECULE_AGENT_DESCRIPTION`` and
        ``MOLECULE_AGENT_SKILLS``. Secrets that the platform answers with are kept. Repeating it is safe.

        Raises ``MoleculeError``; ``retryable`` tells whether to try again.
        """

    def register_async(self, card: Mapping[str, Any] | None = None, *, url: str | None = None) -> Awaitable[str | None]:
        """``register()`` for asyncio."""

    def verify_inbound(self, authorization: str | bytes | None) -> bool:
        """Whether ``authorization``, a whole header, is ``Bearer`` and the secret the platform proves itself with.

        Without a secret nothing passes. The comparison takes the same time wherever the two differ.
        """

    def save_inbound_secret(self, secret: str) -> None:
        """Keeps the secret that the platform proves itself with; loops and ``register()`` do so by themselves."""

@final
class Files:
    """The files of one workspace: what is sent to it, and what is read of it. ``molecule.files`` serves them."""

    def __new__(cls, agent: Agent, *, root: str | PathLike[str] | None = None) -> Self: ...
    def upload(
        self, authorization: str | bytes | None, content_type: str | None, content_length: int | None
    ) -> Upload:
        """Begins to take in a form with files."""

    def read(self, authorization: str | bytes | None, path: str) -> FileAnswer:
        """Opens a file by the path that the workspace knows it by."""

    def transcript_page(
        self, authorization: str | bytes | None, since: str | None, limit: str | None
    ) -> tuple[int, int] | FileAnswer:
        """From which line on, and how many lines of the transcript to show; an answer where that is refused."""

@final
class Upload:
    """A form with files on its way in. One that breaks off is not kept."""

    def write(self, piece: bytes) -> bool:
        """Passes on a piece of the form, and says whether more is wanted."""

    def finish(self) -> FileAnswer:
        """The answer, once the form is at its end."""

@final
class FileAnswer:
    """What to answer."""

    @property
    def status(self) -> int:
        """The HTTP status."""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The headers, as ASGI has them."""

    def next(self) -> bytes | None:
        """The next piece of the body; ``None`` at its end.

        Raises ``MoleculeError`` where a file turns out shorter than it was.
        """

@final
class HeartbeatStatus:
    """How a loop was doing when it was asked."""

    @property
    def running(self) -> bool:
        """Whether the loop was started and not stopped."""

    @property
    def accepted(self) -> int:
        """How many heartbeats the platform accepted."""

    @property
    def auth_failures(self) -> int:
        """How many were rejected for the token, or because the workspace is gone, since the last accepted one."""

    @property
    def other_failures(self) -> int:
        """How many failed otherwise since the last accepted one."""

    @property
    def last(self) -> str | None:
        """What came of the last one: ``ok``, ``unauthorized``, ``removed``, ``rate_limited``, ``server_error`` or ``unreachable``."""

    @property
    def message(self) -> str:
        """The same in words."""

@final
class HeartbeatLoop:
    """Keeps a workspace alive in the eyes of its platform, on a thread that never waits for Python.

    It beats at once and then every ``interval`` seconds, of at most 20, a little earlier or later by chance; where the
    platform asks for another pace, it is followed. It ends only when it is stopped: failures are counted, logged, and
    tried again. Secrets that the platform sends are kept, and a token that another process saved is taken up.

    ``on_beat`` is called with the status after each beat, on a thread of its own, one call after the other. When the
    interpreter is busy it is called later, and when it is busy for very long, for some beats not at all.

    ``with`` and ``async with`` start the loop and stop it at the end.
    """

    def __new__(
        cls,
        agent: Agent | None = None,
        *,
        interval: float = 20.0,
        on_beat: Callable[[HeartbeatStatus], object] | None = None,
    ) -> Self: ...
    @property
    def agent(self) -> Agent:
        """The agent it beats for; the one that the environment describes when none was given."""

    @property
    def status(self) -> HeartbeatStatus:
        """How the loop is doing now, or did when it was stopped."""

    def start(self) -> None:
        """Starts the loop. A loop that runs is left alone; one that was stopped starts anew."""

    def stop(self) -> None:
        """Stops the loop and waits until its thread is done. A loop that does not run is left alone."""

    def stop_async(self) -> Awaitable[None]:
        """``stop()`` for asyncio."""

    def wait_accepted(self, timeout: float = 30.0) -> None:
        """Waits until the last heartbeat is an accepted one.

        Raises ``UnavailableError`` after ``timeout`` seconds, saying what came of the last one.
        """

    def wait_accepted_async(self, timeout: float = 30.0) -> Awaitable[None]:
        """``wait_accepted()`` for asyncio."""

    def update(
        self,
        *,
        error_rate: float | None = None,
        sample_error: str | None = None,
        active_tasks: int | None = None,
        current_task: str | None = None,
        runtime_state: str | None = None,
        monthly_spend: int | None = None,
        capabilities: Mapping[str, bool] | None = None,
        idle_timeout_seconds: int | None = None,
    ) -> None:
        """Changes what the next heartbeats say; what is ``None`` stays, and an empty string is taken back.

        ``error_rate`` is from 0 to 1, ``monthly_spend`` in US cents; ``runtime_state`` is ``wedged`` when the agent lives and
        cannot work.
        """

    def __enter__(self) -> Self: ...
    def __exit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> None: ...
    def __aenter__(self) -> Awaitable[Self]: ...
    def __aexit__(
        self, type: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None, /
    ) -> Awaitable[None]: ...
