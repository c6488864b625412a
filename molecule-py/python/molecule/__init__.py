"""The agent's side of Molecule: a control plane for fleets of AI-agent workspaces."""

from molecule._molecule import __version__

__all__ = ["__version__"]
