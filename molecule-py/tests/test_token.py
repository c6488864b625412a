"""The functions that need nothing but the environment."""

import json
import stat

import molecule
import pytest

from .conftest import Script

ID = "6f9619ff-8b86-d011-b42d-00cf4fc964ff"


def test_importing_needs_no_environment(script: Script) -> None:
    assert script.run("import molecule; print(molecule.get_token())") == "None"


@pytest.mark.parametrize(
    ("file", "variable", "expected"),
    [
        (None, None, "None"),
        (None, "from-env", "from-env"),
        (" from-file\n", None, "from-file"),
        ("from-file", "from-env", "from-file"),
        (" \n", "from-env", "from-env"),
        (None, " ", "None"),
    ],
)
def test_the_file_goes_before_the_variable(
    script: Script, file: str | None, variable: str | None, expected: str
) -> None:
    if file is not None:
        (script.configs / ".auth_token").write_text(file)
    variables = {} if variable is None else {"MOLECULE_WORKSPACE_TOKEN": variable}
    assert script.run("import molecule; print(molecule.get_token())", **variables) == expected


def test_a_saved_token_is_private_trimmed_and_shared(script: Script) -> None:
    said = script.run(
        "import molecule\n"
        "agent = molecule.Agent()\n"
        "molecule.save_token(' new\\n')\n"
        "print(molecule.get_token(), agent.get_token(), molecule.auth_headers()['Authorization'])",
        WORKSPACE_ID=ID,
        PLATFORM_URL="http://platform",
        MOLECULE_WORKSPACE_TOKEN="old",
    )
    assert said == "new new Bearer new"
    file = script.configs / ".auth_token"
    assert file.read_text() == "new"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in script.configs.iterdir()] == [".auth_token"]


def test_refreshing_finds_what_others_wrote(script: Script) -> None:
    said = script.run(
        "import molecule, os, pathlib\n"
        "print(molecule.get_token())\n"
        "os.environ['MOLECULE_WORKSPACE_TOKEN'] = 'other'\n"
        "print(molecule.get_token(), molecule.refresh_cache())\n"
        "pathlib.Path(os.environ['CONFIGS_DIR'], '.auth_token').write_text('file')\n"
        "print(molecule.get_token(), molecule.refresh_cache())",
        MOLECULE_WORKSPACE_TOKEN="first",
    )
    assert said.split() == ["first", "first", "other", "other", "file"]


def test_headers_hold_what_is_known(script: Script) -> None:
    source = (
        "import json, molecule\n"
        f"print(json.dumps([molecule.auth_headers(), molecule.self_source_headers('{ID}')]))"
    )
    assert json.loads(script.run(source)) == [{}, {"X-Workspace-ID": ID}]
    known = script.run(source, PLATFORM_URL="https://fleet.example/ ", MOLECULE_WORKSPACE_TOKEN="t0ken")
    headers = {"Origin": "https://fleet.example", "Authorization": "Bearer t0ken"}
    assert json.loads(known) == [headers, {**headers, "X-Workspace-ID": ID}]


def test_a_token_that_others_can_read_is_made_private_and_told(script: Script) -> None:
    file = script.configs / ".auth_token"
    file.write_text("t0ken")
    file.chmod(0o644)
    said = script.run(
        "import logging, queue, molecule, logging.handlers\n"
        "told = queue.Queue()\n"
        "logging.getLogger('molecule').addHandler(logging.handlers.QueueHandler(told))\n"
        "print(molecule.get_token())\n"
        "record = told.get(timeout=30)\n"
        "print(record.levelname, record.getMessage())"
    )
    assert said.startswith("t0ken\nWARNING") and "private" in said and "t0ken" not in said.splitlines()[1]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_file_that_is_no_token_is_an_error_that_names_it(script: Script) -> None:
    source = (
        "import molecule\n"
        "try: molecule.get_token()\n"
        "except molecule.MoleculeError as error: print(error.code, error.retryable, error)"
    )
    file = script.configs / ".auth_token"
    for content in [b"\xff\xfe", b"x" * 5000]:
        file.write_bytes(content)
        assert ".auth_token" in script.run(source)
    file.unlink()
    file.mkdir()
    said = script.run(source)
    assert said.startswith("unexpected False") and ".auth_token cannot be read" in said


@pytest.mark.parametrize("token", ["", " \n", "two\nlines", "umläut", "x" * 5000])
def test_what_is_no_token_is_not_saved(tmp_path_factory: pytest.TempPathFactory, token: str) -> None:
    folder = tmp_path_factory.mktemp("configs")
    agent = molecule.Agent(workspace_id=ID, platform_url="http://platform", configs_dir=folder)
    with pytest.raises(molecule.InvalidInputError) as raised:
        agent.save_token(token)
    assert not raised.value.retryable and list(folder.iterdir()) == []


def test_secrets_are_taken_out_of_text() -> None:
    assert molecule.redact(f"use sk-{'x' * 20}, ümläut") == "use [REDACTED], ümläut"
    assert molecule.redact(f"token = {'y' * 40}") == "token = [REDACTED]"
    assert molecule.redact("the key is under the mat") == "the key is under the mat"
