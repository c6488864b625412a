"""The command ``molecule-mcp``: an agent's membership and its tools, for a client of the Model Context Protocol."""

import logging
import signal
import sys

from molecule._molecule import is_mcp_verbose, run_mcp

__all__ = ["main"]


def main(*, tools_alone: bool = False) -> None:
    """Runs until the client closes its end, and exits.

    With ``tools_alone`` it neither registers nor beats, and has no inbox.
    """
    # The command waits outside of Python, which would never come to hear of Ctrl-C.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    level = logging.INFO if is_mcp_verbose() else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="[molecule-mcp] %(message)s")
    code, message = run_mcp(tools_alone)
    if message:
        print(message, file=sys.stderr)
    sys.exit(code)


if __name__ == "__main__":
    main()
