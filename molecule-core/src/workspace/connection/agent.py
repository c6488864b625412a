# pip install "git+https://github.com/Molecule-AI/molecule-sdk-python.git@main"
import asyncio

from molecule_agent import A2AServer, RemoteAgentClient

WORKSPACE_ID = "{{WORKSPACE_ID}}"
PLATFORM_URL = "{{PLATFORM_URL}}"
AUTH_TOKEN = "<paste from create response>"
# Where the platform can reach this process.
INBOUND_URL = "https://agent.example.com"


async def handle(request: dict) -> dict:
    """Answers a message: parts in, parts out."""
    texts = [part["text"] for part in request.get("parts", []) if part.get("text")]
    return {"parts": [{"kind": "text", "text": "You said: " + " ".join(texts)}]}


async def main() -> None:
    client = RemoteAgentClient(workspace_id=WORKSPACE_ID, platform_url=PLATFORM_URL, auth_token=AUTH_TOKEN)
    server = A2AServer(agent_id=WORKSPACE_ID, inbound_url=INBOUND_URL, message_handler=handle)
    server.start_in_background()
    client.reported_url = INBOUND_URL
    client.register()
    await client.run_heartbeat_loop_async()


asyncio.run(main())
