__version__: str
"""The version of the package, which is that of the core it was built from."""
