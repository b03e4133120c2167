"""Small runs for the tests of this folder."""

from tests.small_runs import configure

__all__ = ["configure"]
