"""Registering, and the secret of the platform."""

import asyncio
import resource
import stat
from pathlib import Path

import molecule
import pytest

from .conftest import Script, Server
from .platform import Answer, Platform, answer

ID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"


def agent(platform: Platform, folder: Path, timeout: float = 30.0) -> molecule.Agent:
    return molecule.Agent(
        workspace_id=ID, platform_url=platform.url, token="t0ken", configs_dir=folder, timeout=timeout
    )


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"PLATFORM_URL": "http://p"}, "WORKSPACE_ID is not set"),
        ({"WORKSPACE_ID": "x", "PLATFORM_URL": "http://p"}, "WORKSPACE_ID is not a UUID: \"x\""),
        ({"WORKSPACE_ID": ID}, "PLATFORM_URL is not set"),
        ({"WORKSPACE_ID": ID, "PLATFORM_URL": "p:8080"}, "http://"),
    ],
)
def test_what_is_missing_is_named(script: Script, variables: dict[str, str], message: str) -> None:
    said = script.run(
        "import molecule\ntry: molecule.Agent()\nexcept molecule.InvalidInputError as error: print(error.code, error)",
        **variables,
    )
    assert said.startswith("invalid_input") and message in said


def test_settings_are_read_and_told(script: Script) -> None:
    said = script.run("import molecule; print(molecule.Agent())", WORKSPACE_ID=f" {ID} ", PLATFORM_URL="http://p/")
    assert said == f"Agent(workspace_id='{ID}', platform_url='http://p')"


@pytest.mark.parametrize("timeout", [0, -1, float("nan"), float("inf")])
def test_a_timeout_is_a_time(timeout: float) -> None:
    with pytest.raises(ValueError, match="timeout must be a positive number"):
        molecule.Agent(workspace_id=ID, platform_url="http://p", timeout=timeout)


def test_a_workspace_is_online_once_its_agent_registered(server: Server, script: Script) -> None:
    workspace = server.create("registers")
    assert server.status(workspace) == "awaiting_agent"
    assert script.run("import molecule; print(molecule.Agent().register())", **workspace) == "poll"
    assert server.status(workspace) == "online"
    again = "import asyncio, molecule\nasync def main(): print(await molecule.Agent().register_async({'name': 'again'}))\n"
    assert script.run(again + "asyncio.run(main())", **workspace) == "poll"
    shown = server.http.get(f"/workspaces/{workspace['WORKSPACE_ID']}").json()
    assert shown["agent_card"]["name"] == "again"


def test_a_wrong_token_and_one_that_went_with_its_workspace_are_told(server: Server, tmp_path: Path) -> None:
    workspace = server.create("removed")
    stranger = molecule.Agent(
        workspace_id=workspace["WORKSPACE_ID"], platform_url=server.url, token="wrong", configs_dir=tmp_path
    )
    with pytest.raises(molecule.AuthenticationError, match="HTTP 401") as wrong:
        stranger.register()
    assert (wrong.value.code, wrong.value.retryable) == ("unauthenticated", False)
    assert "as when the workspace was removed" in str(wrong.value)
    known = molecule.Agent(
        workspace_id=workspace["WORKSPACE_ID"],
        platform_url=server.url,
        token=workspace["MOLECULE_WORKSPACE_TOKEN"],
        configs_dir=tmp_path,
    )
    assert known.register() == "poll"
    server.delete(workspace)
    # Its tokens went with it, so the platform cannot say more than that this one is none.
    with pytest.raises(molecule.AuthenticationError, match="as when the workspace was removed"):
        known.register()


def test_what_is_sent_and_what_is_kept(platform: Platform, tmp_path: Path) -> None:
    platform.answers = [
        answer({"status": "registered", "delivery_mode": "push", "auth_token": "new", "platform_inbound_secret": "s3cret"})
    ]
    ours = agent(platform, tmp_path)
    card = {"name": "Ada", "preferredTransport": "JSONRPC", "skills": [{"id": "a", "examples": ["x"]}]}
    assert ours.register(card, url="http://127.0.0.1:9/") == "push"
    (request,) = platform.requests
    assert request.body == {"id": ID, "url": "http://127.0.0.1:9/", "agent_card": card, "delivery_mode": "push"}
    headers = request.headers
    assert headers["origin"] == platform.url and headers["authorization"] == "Bearer t0ken"
    assert ours.get_token() == "new"
    for name, text in [(".auth_token", "new"), (".platform_inbound_secret", "s3cret")]:
        file = tmp_path / name
        assert file.read_text() == text and stat.S_IMODE(file.stat().st_mode) == 0o600
    assert ours.verify_inbound("Bearer s3cret") and ours.verify_inbound(b"Bearer s3cret")
    for wrong in [None, "", "s3cret", "bearer s3cret", "Bearer s3cret ", "Bearer s3cre", "Bearer ümläut", b"Bearer \xff"]:
        assert not ours.verify_inbound(wrong), wrong


def test_without_a_secret_nothing_passes(platform: Platform, tmp_path: Path) -> None:
    ours = agent(platform, tmp_path)
    assert not ours.verify_inbound("Bearer ") and not ours.verify_inbound("Bearer None")
    ours.save_inbound_secret("s3cret")
    assert ours.verify_inbound("Bearer s3cret")
    other = agent(platform, tmp_path)
    other.save_inbound_secret("rotated")
    assert ours.verify_inbound("Bearer rotated") and not ours.verify_inbound("Bearer s3cret")


@pytest.mark.parametrize(
    ("given", "kind", "code", "retryable", "message"),
    [
        (answer([1]), molecule.UnavailableError, "upstream", False, "not a JSON object"),
        (Answer(body=b"<html>Welcome</html>"), molecule.UnavailableError, "upstream", False, "something else"),
        (Answer(body=b"x" * 1_048_576), molecule.UnavailableError, "upstream", False, "not a JSON object"),
        (Answer(never=True), molecule.UnavailableError, "unavailable", True, "no answer in time"),
        (Answer(307, headers={"Location": "/"}), molecule.InvalidInputError, "invalid_input", False, "redirects"),
        (answer({"error": "url is required"}, 400), molecule.InvalidInputError, "invalid_input", False, "url is required"),
        (answer({}, 403), molecule.AuthenticationError, "unauthenticated", False, "HTTP 403"),
        (answer({"error": "workspace removed"}, 410), molecule.RemovedError, "removed", False, "removed on the platform"),
        (answer({}, 429, Retry_After="7"), molecule.RateLimitedError, "limit_reached", True, "too many calls"),
        (answer({}, 500), molecule.UnavailableError, "unavailable", True, "HTTP 500"),
    ],
)
def test_every_answer_has_its_error(
    platform: Platform, tmp_path: Path, given: Answer, kind: type[molecule.MoleculeError], code: str, retryable: bool, message: str
) -> None:
    platform.answers = [given]
    ours = agent(platform, tmp_path, timeout=1.0)
    with pytest.raises(kind, match=message) as raised:
        ours.register()
    assert (raised.value.code, raised.value.retryable) == (code, retryable)
    assert raised.value.retry_after == (7 if given.status == 429 else None)

    async def register() -> None:
        await ours.register_async()

    with pytest.raises(kind, match=message):
        asyncio.run(register())


def test_a_platform_that_is_not_there_is_told(tmp_path: Path) -> None:
    ours = molecule.Agent(workspace_id=ID, platform_url="http://127.0.0.1:9", configs_dir=tmp_path)
    with pytest.raises(molecule.MoleculeError, match="cannot be reached") as raised:
        ours.register()
    assert raised.value.retryable


def test_a_card_is_a_dictionary_of_json(platform: Platform, tmp_path: Path) -> None:
    ours = agent(platform, tmp_path)
    with pytest.raises(molecule.InvalidInputError, match="agent card"):
        ours.register(["a"])  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        ours.register({"name": object()})
    assert platform.requests == []


def test_a_full_disk_is_told_and_the_secret_is_in_use(platform: Platform, script: Script) -> None:
    platform.answers = [answer({"status": "registered", "auth_token": "new", "platform_inbound_secret": "s3cret"})]
    said = script.run(
        "import resource, logging, logging.handlers, queue, molecule\n"
        "told = queue.Queue()\n"
        "logging.getLogger('molecule').addHandler(logging.handlers.QueueHandler(told))\n"
        "agent = molecule.Agent()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "agent.register()\n"
        "print(agent.get_token(), agent.verify_inbound('Bearer s3cret'))\n"
        "for _ in range(2): print(told.get(timeout=30).getMessage())\n"
        "try: agent.save_token('newer')\n"
        "except molecule.MoleculeError as error: print(error)\n"
        "print(agent.get_token())",
        WORKSPACE_ID=ID,
        PLATFORM_URL=platform.url,
        MOLECULE_WORKSPACE_TOKEN="t0ken",
    ).splitlines()
    assert said[0] == "new True"
    assert "token" in said[1] and "could not be kept" in said[1] and "inbound secret" in said[2]
    assert ".auth_token cannot be written" in said[3] and said[4] == "newer"
    assert not any("s3cret" in line for line in said[1:]), said
    assert list(script.configs.iterdir()) == []
    assert resource.getrlimit(resource.RLIMIT_FSIZE)[0] != 0
