"""The package as it is installed."""

import ast
import importlib.metadata
import importlib.resources
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import molecule
from molecule import _molecule

PROJECT = Path(__file__).parents[1]
WHEELS = PROJECT.parent / "target" / "wheels"


def test_the_version_is_that_of_the_package() -> None:
    assert molecule.__version__ == importlib.metadata.version("molecule-py")


def test_type_checkers_are_told_that_it_is_typed() -> None:
    files = importlib.resources.files(molecule)
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_molecule.pyi").is_file()


def test_the_stubs_say_what_the_module_holds(tmp_path: Path) -> None:
    run("mypy.stubtest", "molecule", at=tmp_path)


def test_a_stub_that_says_something_else_is_found(tmp_path: Path) -> None:
    copy = tmp_path / "molecule"
    shutil.copytree(str(importlib.resources.files(molecule)), copy)
    stubs = copy / "_molecule.pyi"
    stubs.write_text(stubs.read_text() + "\ndef planted() -> None: ...\n")
    line = len(stubs.read_text().splitlines())
    environment = os.environ | {"PYTHONPATH": str(tmp_path), "MYPYPATH": str(tmp_path)}
    command = [sys.executable, "-m", "mypy.stubtest", "molecule"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "molecule._molecule.planted is not present at runtime" in done.stdout
    assert f"{stubs}:{line}" in done.stdout


def test_the_module_says_what_the_stubs_say() -> None:
    stubs = ast.parse(importlib.resources.files(molecule).joinpath("_molecule.pyi").read_text())
    compared = 0
    for name, node in described(stubs.body):
        found: object = _molecule
        for part in name.split("."):
            found = getattr(found, part)
        assert inspect.getdoc(found) == ast.get_docstring(node), f"{name}: copy the text from _molecule.pyi"
        compared += 1
    assert compared > 20


def described(body: list[ast.stmt], of: str = "") -> Iterator[tuple[str, ast.ClassDef | ast.FunctionDef]]:
    """Everything in the stubs that says what it is, by its name."""
    for node in body:
        if isinstance(node, (ast.ClassDef, ast.FunctionDef)):
            if ast.get_docstring(node):
                yield f"{of}{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from described(node.body, f"{of}{node.name}.")


def test_the_wheel_alone_is_enough(tmp_path: Path) -> None:
    """An empty environment, the wheel, and nothing else: it needs no other package."""
    (wheel,) = WHEELS.glob("molecule_py-*.whl")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "empty"], check=True)
    python = tmp_path / "empty" / "bin" / "python"
    packages = subprocess.run(
        [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], capture_output=True, text=True, check=True
    ).stdout.strip()
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--target", packages, str(wheel)]
    subprocess.run(install, check=True)
    code = "import molecule, sys; print(molecule.__version__); molecule.Agent"
    done = subprocess.run([python, "-I", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == molecule.__version__


def test_package_and_tests_are_typed_strictly() -> None:
    packages = ["molecule", "molecule_runtime", "tests"]
    run("mypy", "--strict", *(word for package in packages for word in ("--package", package)), at=PROJECT)


def test_every_error_of_the_core_has_a_class_and_a_code_of_its_own() -> None:
    table = _molecule.error_table()
    assert len(table) > 10
    for kind, name, code in table:
        assert issubclass(getattr(molecule, name), molecule.MoleculeError), kind
        assert code == "unexpected" or kind == "Unexpected" or code.isidentifier()
    codes = [code for _, _, code in table]
    assert len(set(codes)) == len(codes), "a kind of the core has no line in the table"


def test_a_status_is_the_text_of_the_platform() -> None:
    said: str = json.loads('"awaiting_agent"')
    assert said == molecule.WorkspaceStatus.AWAITING_AGENT
    assert f"{molecule.WorkspaceStatus.ONLINE}" == str(molecule.WorkspaceStatus("online")) == "online"
    assert json.dumps({"status": molecule.WorkspaceStatus.PAUSED}) == '{"status": "paused"}'
    assert len(molecule.WorkspaceStatus) == 10


def run(module: str, *arguments: str, at: Path) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
