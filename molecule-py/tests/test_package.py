"""The package as it is installed."""

import importlib.metadata
import importlib.resources

import molecule


def test_the_version_is_that_of_the_package() -> None:
    assert molecule.__version__ == importlib.metadata.version("molecule")


def test_type_checkers_are_told_that_it_is_typed() -> None:
    files = importlib.resources.files(molecule)
    assert files.joinpath("py.typed").is_file()
    assert files.joinpath("_molecule.pyi").is_file()
