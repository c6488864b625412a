# Registers this workspace once, from any shell. It does not keep it alive: an agent beats every 20 seconds.
export WORKSPACE_AUTH_TOKEN='<paste from create response>'
# Where this workspace is called: an address that the platform can reach.
export AGENT_URL='https://agent.example.com'

# Behind a hosted edge firewall only same-origin requests get through: without Origin, /workspaces/* answers an empty
# 404. Registering is tolerated without it today; sending it is future-proof.
curl --fail-with-body -sS -X POST '{{PLATFORM_URL}}/registry/register' \
  -H "Authorization: Bearer $WORKSPACE_AUTH_TOKEN" \
  -H 'Content-Type: application/json' \
  -H 'Origin: {{PLATFORM_URL}}' \
  -d @- <<JSON
{
  "id": "{{WORKSPACE_ID}}",
  "url": "$AGENT_URL",
  "agent_card": {"name": "my agent", "description": "what it is for", "version": "1.0.0"}
}
JSON
