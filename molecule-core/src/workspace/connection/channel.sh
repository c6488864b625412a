# Messages to this workspace appear in a Claude Code session, and are answered from there. The channel polls, so it needs
# neither a tunnel nor a public address.
mkdir -p ~/.claude/channels/molecule
cat > ~/.claude/channels/molecule/.env <<'ENV'
MOLECULE_PLATFORM_URL={{PLATFORM_URL}}
MOLECULE_WORKSPACE_IDS={{WORKSPACE_ID}}
MOLECULE_WORKSPACE_TOKENS=<paste auth_token from create response>
ENV
chmod 600 ~/.claude/channels/molecule/.env

# Several workspaces in one session: list their ids and their tokens with commas, both in the same order.

# In Claude Code, once: /plugin install molecule@molecule-channel
# Then begin a session with the channel; it replies with the tool reply_to_workspace.
claude --dangerously-load-development-channels plugin:molecule@molecule-channel
