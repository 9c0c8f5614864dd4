"""A headless Chromium, for the tests of pages."""

import contextlib
import pathlib

from selenium import webdriver
from selenium.common.exceptions import StaleElementReferenceException
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

DEADLINE = 120


@contextlib.contextmanager
def browser(dark=False, scripts=True):
    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=900,700"):
        options.add_argument(argument)
    if dark:
        options.add_argument("--force-dark-mode")
    if not scripts:
        setting = {"profile.managed_default_content_settings.javascript": 2}
        options.add_experimental_option("prefs", setting)
    driver = webdriver.Chrome(options=options, service=Service("/usr/bin/chromedriver"))
    try:
        yield driver
    finally:
        driver.quit()


def until(driver, condition):
    # The page may change between a look for an element and a look at it.
    ignored = (StaleElementReferenceException,)
    wait = WebDriverWait(driver, DEADLINE, poll_frequency=0.05, ignored_exceptions=ignored)
    return wait.until(condition)


def keep_light(folder: pathlib.Path):
    """Names the pictures after the light theme, so that those of the dark one stay beside them."""
    for picture in folder.glob("*.png"):
        if not picture.stem.endswith("-light"):
            picture.rename(picture.with_stem(picture.stem + "-light"))
