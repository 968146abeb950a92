"""The toy classifier and its runtime, for the tables that measure images."""

from tests.methods.conftest import classifier, runtime  # noqa: F401
