"""Wrong and odd tables: each is an error that names file and row, or is read as it was meant."""

from benchmarks.wrong_tables import failures


def test_wrong_tables_are_errors_and_odd_ones_are_right():
    counts, failed = failures(120)
    assert not failed, "\n".join(failed)
    assert len(counts) > 40
