"""What a machine lacks is skipped, and in CI fails."""

import os
from shutil import which

import pytest


def skip(reason):
    """Skip the test for want of something; in CI, where nothing may be missing, fail it."""
    (pytest.fail if os.environ.get("MGWA_PYG_SKIP_NOTHING") else pytest.skip)(reason)


def start_browser(folder):
    """Start a browser that selenium drives; skip where it or its driver is missing, or it does not fit.

    What it keeps goes into a folder.
    """
    from selenium import webdriver
    from selenium.common.exceptions import WebDriverException
    from selenium.webdriver.chrome.service import Service

    names = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
    binary, driver = next(filter(None, map(which, names)), None), which("chromedriver")
    if binary is None or driver is None:
        skip("Chromium, or Chrome, is not installed" if binary is None else "chromedriver is not installed")
    options = webdriver.ChromeOptions()
    for option in (
        "headless=new",
        "no-sandbox",
        "disable-gpu",
        "disable-quic",
        "no-first-run",
        "disable-background-networking",
        "disable-component-update",
        "disable-sync",
        "disable-dev-shm-usage",
        f"user-data-dir={folder}",
    ):
        options.add_argument(f"--{option}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    options.binary_location = binary
    try:
        return webdriver.Chrome(options, Service(driver))
    except (WebDriverException, OSError) as error:
        skip(f"{driver} cannot start {binary}: {error}")
