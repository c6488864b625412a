"""The tools of ``molecule-mcp`` alone: another process of the agent registers, beats and takes in messages."""

from molecule.mcp import main

__all__ = ["cli_main"]


def cli_main() -> None:
    """Runs until the client closes its end, and exits."""
    main(tools_alone=True)


if __name__ == "__main__":
    cli_main()
