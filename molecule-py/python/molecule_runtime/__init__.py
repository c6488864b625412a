"""The names by which configurations of agents start ``molecule-mcp``. What is new uses ``molecule``."""

from molecule import auth_headers, get_token, refresh_cache, save_token, self_source_headers

__all__ = ["auth_headers", "get_token", "refresh_cache", "save_token", "self_source_headers"]
