"""The agent's side of Molecule: a control plane for fleets of AI-agent workspaces.

An agent becomes a member of the fleet in three lines::

    agent = molecule.Agent()  # WORKSPACE_ID, PLATFORM_URL and MOLECULE_WORKSPACE_TOKEN say who it is
    agent.register()
    with molecule.HeartbeatLoop(agent): ...

What happens along the way is told to the logger ``molecule``.
"""

from molecule._errors import (
    AuthenticationError,
    InvalidInputError,
    MoleculeError,
    RateLimitedError,
    RemovedError,
    UnavailableError,
)
from molecule._molecule import (
    Agent,
    HeartbeatLoop,
    HeartbeatStatus,
    __version__,
    auth_headers,
    get_token,
    redact,
    refresh_cache,
    save_token,
    self_source_headers,
)
from molecule._statuses import WorkspaceStatus

__all__ = [
    "Agent",
    "AuthenticationError",
    "HeartbeatLoop",
    "HeartbeatStatus",
    "InvalidInputError",
    "MoleculeError",
    "RateLimitedError",
    "RemovedError",
    "UnavailableError",
    "WorkspaceStatus",
    "__version__",
    "auth_headers",
    "get_token",
    "redact",
    "refresh_cache",
    "save_token",
    "self_source_headers",
]
