"""A package, so that tests import what they share: `from tests.nn.oracle import aggregate`."""
