"""``molecule-mcp`` by its older name."""

from molecule.mcp import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
