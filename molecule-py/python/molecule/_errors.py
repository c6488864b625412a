"""What can go wrong."""

__all__ = [
    "AuthenticationError",
    "InvalidInputError",
    "MoleculeError",
    "RateLimitedError",
    "RemovedError",
    "UnavailableError",
]


class MoleculeError(Exception):
    """Anything that went wrong here or on the platform; every other exception of the package is one of these."""

    code: str
    """A stable name of what went wrong, for programs."""

    retryable: bool
    """Whether the same call may succeed later."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "unexpected",
        retryable: bool = False,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.retryable = retryable
        self.retry_after = retry_after
        """The seconds after which the platform wants to be asked again, as far as it said."""


class InvalidInputError(MoleculeError):
    """A setting or an argument breaks a rule; the message names it."""


class AuthenticationError(MoleculeError):
    """The token is missing, wrong, revoked, or does not allow this."""


class RemovedError(MoleculeError):
    """The platform has no such workspace any more."""


class RateLimitedError(MoleculeError):
    """The platform was asked too often, or has spent what it may spend."""


class UnavailableError(MoleculeError):
    """The platform cannot be reached, failed, or answered what no platform answers."""
