"""Files and pages of the benchmarks."""

import gzip
import json

import pytest

from benchmarks.harness import read_results, write_page, write_results


def test_a_page_keeps_what_is_written_by_hand(tmp_path):
    page = tmp_path / "page.md"
    assert write_page(page, "A title", {"One": "1"}) == (
        "# A title\n\n## One\n\n<!-- generated: One -->\n\n1\n\n<!-- end -->\n"
    )
    page.write_text(page.read_text().replace("## One\n", "By hand.\n") + "\nA conclusion.\n")
    text = write_page(page, "Another title", {"One": "3", "Two": "2"})
    place = "<!-- generated: {} -->\n\n{}\n\n<!-- end -->\n".format
    by_hand = f"# A title\n\nBy hand.\n\n{place('One', '3')}\nA conclusion.\n\n## Two\n\n"
    assert text == page.read_text() == by_hand + place("Two", "2")
    # Nothing stays of what was not measured again.
    assert write_page(page, "", {"One": "3"}) == by_hand + place("Two", "Not measured.")


@pytest.mark.parametrize("name", ["rows.json", "rows.json.gz"])
def test_results_are_read_as_they_were_written(name, tmp_path):
    content = {"environment": {"cpu": "ä"}, "rows": [{"value": 0.1, "sd": None}, {"value": 2}], "tests": []}
    write_results(tmp_path / name, content)
    written = (tmp_path / name).read_bytes()
    write_results(tmp_path / name, content)
    assert (tmp_path / name).read_bytes() == written
    assert read_results(tmp_path / name) == content
    assert (written[:2] == b"\x1f\x8b") == name.endswith(".gz")
    lines = (gzip.decompress(written) if name.endswith(".gz") else written).splitlines()
    assert len(lines) == 8
    assert json.loads(lines[3].rstrip(b",")) == content["rows"][0]
