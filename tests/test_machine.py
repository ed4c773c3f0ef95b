"""A machine without a browser, or one that cannot be driven: the test is skipped, and in CI fails."""

import pytest

from tests.machine import start_browser


@pytest.mark.browser
@pytest.mark.parametrize("in_ci", [False, True])
@pytest.mark.parametrize(
    ("programs", "reason"),
    [
        ([], "Chromium, or Chrome, is not installed"),
        (["chromedriver"], "Chromium, or Chrome, is not installed"),
        (["chromium"], "chromedriver is not installed"),
        (["google-chrome"], "chromedriver is not installed"),
        (["chromium", "chromedriver"], r"chromedriver cannot start \S+chromium"),  # Neither does anything.
    ],
)
def test_a_browser_that_cannot_be_driven(tmp_path, monkeypatch, programs, reason, in_ci):
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in programs:
        program = tmp_path / name
        program.write_text("#!/bin/sh\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("MGWA_PYG_SKIP_NOTHING", "1" if in_ci else "")
    with pytest.raises(pytest.fail.Exception if in_ci else pytest.skip.Exception, match=reason):
        start_browser(tmp_path)
