"""The package as it is installed."""

import importlib.metadata
import importlib.resources
import subprocess
import sys
from pathlib import Path

import molecule
from molecule import _molecule

PROJECT = Path(__file__).parents[1]


def test_the_version_is_that_of_the_package() -> None:
    assert molecule.__version__ == importlib.metadata.version("molecule-py")


def test_type_checkers_are_told_that_it_is_typed() -> None:
    files = importlib.resources.files(molecule)
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_molecule.pyi").is_file()


def test_the_stubs_say_what_the_module_holds(tmp_path: Path) -> None:
    run("mypy.stubtest", "molecule", at=tmp_path)


def test_package_and_tests_are_typed_strictly() -> None:
    run("mypy", "--strict", "--package", "molecule", "--package", "tests", at=PROJECT)


def test_every_error_of_the_core_has_a_class_and_a_code_of_its_own() -> None:
    table = _molecule.error_table()
    assert len(table) > 10
    for kind, name, code in table:
        assert issubclass(getattr(molecule, name), molecule.MoleculeError), kind
        assert code == "unexpected" or kind == "Unexpected" or code.isidentifier()
    codes = [code for _, _, code in table]
    assert len(set(codes)) == len(codes), "a kind of the core has no line in the table"


def run(module: str, *arguments: str, at: Path) -> None:
    done = subprocess.run([sys.executable, "-m", module, *arguments], cwd=at, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
