"""Drives the pages of the examples in a headless Chromium."""

import contextlib
import hashlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile

from selenium.common.exceptions import WebDriverException
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from driver import DEADLINE, browser, keep_light, until

DIR = pathlib.Path(sys.argv[1])
ROOT = pathlib.Path(__file__).resolve().parents[2]


@contextlib.contextmanager
def running(example, *arguments):
    """Starts an example on a free port; yields its address."""
    command = [str(DIR / example), "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            line = program.stdout.readline()
            assert line.startswith("Listening on "), line
            yield line.split()[-1]
        finally:
            program.terminate()
            assert program.wait(DEADLINE) == 0, f"{example}: {program.returncode}"


def text_of(driver, element):
    return driver.find_element(By.ID, element).text


def two_tabs_chat(driver):
    with running("chat", "examples/chat") as address:
        driver.get(f"{address}?room=test&name=anna")
        first = driver.current_window_handle
        until(driver, lambda d: "test" in text_of(d, "state"))
        driver.switch_to.new_window("tab")
        second = driver.current_window_handle
        driver.get(f"{address}?room=test&name=ben")
        until(driver, lambda d: "test" in text_of(d, "state"))
        driver.find_element(By.ID, "text").send_keys("Hello <b>Anna</b> \u00e4\u4e16", Keys.ENTER)
        for tab in (first, second):
            driver.switch_to.window(tab)
            until(driver, lambda d: "Hello <b>Anna</b> \u00e4\u4e16" in text_of(d, "lines"))
        driver.switch_to.window(first)
        driver.find_element(By.ID, "text").send_keys("Hello Ben", Keys.ENTER)
        driver.switch_to.window(second)
        until(driver, lambda d: "Hello Ben" in text_of(d, "lines"))
        driver.save_screenshot(str(DIR / "chat.png"))
        # Another room hears nothing of it.
        driver.switch_to.new_window("tab")
        driver.get(f"{address}?room=other&name=carl")
        until(driver, lambda d: "other" in text_of(d, "state"))
        assert "Hello" not in text_of(driver, "lines")
        driver.switch_to.window(second)
        driver.close()
        driver.switch_to.window(first)
        until(driver, lambda d: "ben has left" in text_of(d, "lines"))


@contextlib.contextmanager
def a_cluster():
    """Starts the chat over several servers; yields its address, and process ids by name."""
    command = [str(ROOT / "examples/cluster/run"), "-c", str(DIR / "cluster")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
        try:
            pids = {}
            for line in program.stdout:
                member = re.match(r"(?:server )?(\w+): pid (\d+), port (\d+)$", line)
                if member:
                    pids[member[1]] = int(member[2])
                if line.startswith("Listening on "):
                    break
            yield line.split()[-1], pids
        finally:
            program.terminate()
            assert program.wait(DEADLINE) == 0, program.returncode


def a_page_goes_on_at_another_server(driver):
    with a_cluster() as (address, pids):
        tabs = {}
        for name in ("anna", "ben"):
            driver.switch_to.new_window("tab")
            driver.get(f"{address}?room=test&name={name}")
            until(driver, lambda d: "In room" in text_of(d, "state"))
            tabs[name] = driver.current_window_handle

        def look_at(name):
            driver.switch_to.window(tabs[name])

        def lines(which):
            return [line.text for line in driver.find_elements(By.CSS_SELECTOR, f"li{which}")]

        def say(name, text):
            look_at(name)
            driver.find_element(By.ID, "text").send_keys(text, Keys.ENTER)

        def server(name):
            look_at(name)
            return text_of(driver, "server").removeprefix("server ")

        first = server("anna")
        assert first != server("ben")
        say("ben", "Hello <b>Anna</b> \u00e4\u4e16")
        until(driver, lambda d: lines(".mine") and not lines(".waits"))
        look_at("anna")
        until(driver, lambda d: "Hello <b>Anna</b> \u00e4\u4e16" in text_of(d, "lines"))
        os.kill(pids[first], signal.SIGKILL)
        until(driver, lambda d: text_of(d, "server") not in ("no server", f"server {first}"))
        until(driver, lambda d: "In room" in text_of(d, "state"))
        say("anna", "I am still here")
        look_at("ben")
        until(driver, lambda d: "I am still here" in text_of(d, "lines"))
        os.kill(pids["redis"], signal.SIGTERM)
        until(driver, lambda d: "cut off" in text_of(d, "state"))
        say("ben", "Nobody hears this")
        until(driver, lambda d: any("Not delivered" in line for line in lines(".lost")))
        driver.save_screenshot(str(DIR / "cluster.png"))
        for name in tabs:
            look_at(name)
            driver.close()
        driver.switch_to.window(driver.window_handles[0])


def the_plot_moves(driver):
    with running("dashboard", "examples/dashboard") as address:
        driver.get(address)
        until(driver, lambda d: d.execute_script("return points.length") >= 100)
        newest = "return points[points.length - 1].at"
        before = driver.execute_script(newest)
        until(driver, lambda d: d.execute_script(newest) > before)
        driver.save_screenshot(str(DIR / "dashboard.png"))


def a_listing_sorts(driver):
    with tempfile.TemporaryDirectory() as root:
        files = {"b.txt": 3, "a.txt": 2000, "z dir/x": 0, "c&d.txt": 1, "z dir/deep \u00e4/y": 1}
        for name, size in files.items():
            path = pathlib.Path(root, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x" * size)
        with running("static_files", root) as address:
            driver.get(address)

            def names():
                links = driver.find_elements(By.CSS_SELECTOR, "tbody td:first-child a")
                return [link.text for link in links]

            assert names() == ["z dir/", "a.txt", "b.txt", "c&d.txt"], names()
            driver.find_element(By.PARTIAL_LINK_TEXT, "Size").click()
            until(driver, lambda d: names() == ["z dir/", "c&d.txt", "b.txt", "a.txt"])
            driver.find_element(By.PARTIAL_LINK_TEXT, "Size").click()
            until(driver, lambda d: names() == ["z dir/", "a.txt", "b.txt", "c&d.txt"])
            driver.save_screenshot(str(DIR / "listing.png"))
            driver.find_element(By.PARTIAL_LINK_TEXT, "Name").click()
            until(driver, lambda d: names() == ["z dir/", "a.txt", "b.txt", "c&d.txt"])
            color = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
            dark = driver.execute_script("return matchMedia('(prefers-color-scheme:dark)').matches")
            assert color == ("rgb(21, 24, 27)" if dark else "rgb(255, 255, 255)"), color
            driver.find_element(By.LINK_TEXT, "z dir/").click()
            until(driver, lambda d: names() == ["../", "deep \u00e4/", "x"])
            driver.find_element(By.LINK_TEXT, "deep \u00e4/").click()
            until(driver, lambda d: names() == ["../", "y"])
            title = driver.find_element(By.TAG_NAME, "h1")
            assert title.text == "Index of /z dir/deep \u00e4/", title.text
            title.find_element(By.LINK_TEXT, "z dir").click()
            until(driver, lambda d: names() == ["../", "deep \u00e4/", "x"])
            driver.find_element(By.LINK_TEXT, "../").click()
            until(driver, lambda d: "z dir/" in names())


def a_password_opens_a_page_and_all_that_it_loads(driver):
    with tempfile.TemporaryDirectory() as root:
        folder = pathlib.Path(root, "guarded")
        folder.mkdir()
        user = "joe:mydomain.com:"
        digest = hashlib.md5((user + "secret").encode()).hexdigest()
        folder.joinpath(".htpasswd").write_text(f"{user}{digest}\n")
        # They are asked for at once, so that counts arrive in any order.
        count = 40
        scripts = "".join(f"<script async src='{n}.js?{n}'></script>" for n in range(count))
        start = "<!doctype html><title>guarded</title><script>loaded = 0</script>"
        folder.joinpath("index.html").write_text(start + scripts)
        for n in range(count):
            folder.joinpath(f"{n}.js").write_text("loaded++")
        with running("static_files", root) as address:
            host = address.removeprefix("http://")
            driver.get(f"http://joe:secret@{host}guarded/")
            assert driver.title == "guarded", driver.title
            until(driver, lambda d: d.execute_script("return loaded") == count)
        with running("static_files", root) as address:
            host = address.removeprefix("http://")
            # Nobody is there to be asked again.
            try:
                driver.get(f"http://joe:wrong@{host}guarded/")
            except WebDriverException as error:
                assert "INVALID_AUTH" in str(error), error
            assert driver.title != "guarded"


def set_width(driver, width):
    """As a phone has it: windows of Chromium are never as narrow."""
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 600}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


def does_not_scroll_sideways(driver):
    wider = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert driver.execute_script(wider) <= 0, driver.current_url


def the_manual_is_read_on_a_phone_and_in_the_dark(driver):
    address = (ROOT / "docs/manual/index.html").as_uri()
    for width in (360, 1280):
        set_width(driver, width)
        driver.get(f"{address}#option-listening_port")
        does_not_scroll_sideways(driver)
        driver.save_screenshot(str(DIR / f"manual-{width}.png"))
    driver.find_element(By.LINK_TEXT, "mg_write").click()
    assert driver.current_url.endswith("#mg_write"), driver.current_url
    dark = driver.execute_script("return matchMedia('(prefers-color-scheme:dark)').matches")
    color = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
    assert color == ("rgb(21, 24, 28)" if dark else "rgb(253, 253, 251)"), color
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def on_a_phone_and_on_a_desk(driver, name):
    """Both widths, without scrolling sideways, and a picture of each."""
    for width in (360, 1000):
        set_width(driver, width)
        does_not_scroll_sideways(driver)
        driver.save_screenshot(str(DIR / f"{name}-{width}.png"))
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def heading(driver):
    return driver.find_element(By.TAG_NAME, "h1").text


def a_form_greets(driver):
    with running("form") as address:
        driver.get(address)
        on_a_phone_and_on_a_desk(driver, "form")
        driver.find_element(By.ID, "name").send_keys("J\u00fcrgen <b>")
        driver.find_element(By.ID, "town").send_keys("K&K", Keys.ENTER)
        until(driver, lambda d: heading(d) == "Hello, J\u00fcrgen <b> from K&K!")
        on_a_phone_and_on_a_desk(driver, "form-answer")
        driver.find_element(By.LINK_TEXT, "Somebody else").click()
        until(driver, lambda d: heading(d) == "Who are you?")


def an_upload_is_listed(driver):
    with running("upload") as address, tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "a <b> & a name that is rather long for the screen of a phone.txt")
        path.write_text("x" * 1234)
        driver.get(address)
        on_a_phone_and_on_a_desk(driver, "upload")
        driver.find_element(By.ID, "file").send_keys(str(path))
        driver.find_element(By.ID, "note").send_keys("a <i>note</i>", Keys.ENTER)
        until(driver, lambda d: heading(d) == "What has arrived")
        items = [item.text for item in driver.find_elements(By.TAG_NAME, "li")]
        assert items == [f"{path.name} 1234 bytes", "note: a <i>note</i>"], items
        on_a_phone_and_on_a_desk(driver, "upload-answer")


def a_guest_book_is_signed(driver):
    with tempfile.TemporaryDirectory() as folder:
        site = shutil.copytree(ROOT / "examples/cgi", pathlib.Path(folder, "site"))
        with running("cgi", str(site)) as address:
            driver.get(address)
            for text in ("First", "A <b>second</b> one, " + "and a long one " * 8):
                driver.find_element(By.NAME, "text").send_keys(text, Keys.ENTER)
                until(driver, lambda d: d.find_elements(By.TAG_NAME, "li")
                      and d.find_element(By.TAG_NAME, "li").text == text.strip())
            on_a_phone_and_on_a_desk(driver, "guests")


for dark in (False, True):
    with browser(dark) as driver:
        for test in (
            two_tabs_chat,
            a_page_goes_on_at_another_server,
            the_plot_moves,
            a_listing_sorts,
            a_password_opens_a_page_and_all_that_it_loads,
            the_manual_is_read_on_a_phone_and_in_the_dark,
            a_form_greets,
            an_upload_is_listed,
            a_guest_book_is_signed,
        ):
            print(f"{test.__name__}{' (dark)' if dark else ''} ... ", end="", flush=True)
            test(driver)
            print("ok")
    if not dark:
        keep_light(DIR)
