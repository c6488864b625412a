# Gives any agent that speaks MCP the tools of the fleet. It stands alone: molecule-mcp registers this workspace by itself
# and sends a heartbeat every 20 seconds, so that no curl call is needed before it.
pip install molecule-ai-workspace-runtime

# For Claude Code; elsewhere put the same command and environment into the MCP configuration of your agent.
claude mcp add molecule -s user \
  -e WORKSPACE_ID='{{WORKSPACE_ID}}' \
  -e PLATFORM_URL='{{PLATFORM_URL}}' \
  -e MOLECULE_WORKSPACE_TOKEN='<paste from create response>' \
  -- molecule-mcp

# The tools: delegate_task, delegate_task_async, check_task_status, list_peers, get_workspace_info, send_message_to_user,
# commit_memory, recall_memory.
# Only to be called by others (inbound A2A) it needs the Claude Code or the Python SDK tab besides.
# The header Origin, which a hosted edge firewall asks for, is set by the package.
