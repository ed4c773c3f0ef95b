"""Checks, whole files, ranges and plots: what every subpackage may use."""
