"""The statuses of a workspace."""

from enum import Enum

__all__ = ["WorkspaceStatus"]


class WorkspaceStatus(str, Enum):
    """Where a workspace is in its life. Each is also the text that the platform says.

    So ``peer["status"] == WorkspaceStatus.ONLINE`` compares what it answered, and ``WorkspaceStatus(text)`` reads it.
    The list is complete.
    """

    PROVISIONING = "provisioning"
    """Being brought up; nothing has been heard from the agent of this try yet."""

    ONLINE = "online"
    """The agent reports in and is well."""

    OFFLINE = "offline"
    """The agent was lost."""

    DEGRADED = "degraded"
    """The agent reports in and says that it is not well."""

    FAILED = "failed"
    """The last try at bringing the workspace up did not succeed."""

    REMOVED = "removed"
    """Gone for good."""

    PAUSED = "paused"
    """Stopped until someone resumes it."""

    HIBERNATED = "hibernated"
    """Stopped for being idle; the next message wakes it."""

    HIBERNATING = "hibernating"
    """Being stopped for being idle."""

    AWAITING_AGENT = "awaiting_agent"
    """An external workspace that waits for its agent to report in."""

    def __new__(cls, value: str) -> "WorkspaceStatus":
        status = str.__new__(cls, value)
        status._value_ = value
        return status

    def __str__(self) -> str:
        return str.__str__(self)
