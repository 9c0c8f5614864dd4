"""Drives the page of a directory that takes files, in a headless Chromium."""

import contextlib
import hashlib
import os
import pathlib
import signal
import subprocess
import sys
import tempfile

from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from driver import DEADLINE, browser, keep_light, until

DIR = pathlib.Path(sys.argv[1])
MIB = 1 << 20
# A name that would be a page of its own, if it were not taken as text.
TRICK = "<img src=x onerror=window.hacked=1>'\"&.txt"


class Server:
    def __init__(self, root, *options):
        self.root = pathlib.Path(root)
        command = [DIR / "server", "listening_port=127.0.0.1:0", f"document_root={root}"]
        command += ["enable_uploads=yes", *options]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        line = self.process.stdout.readline().split()
        assert line[0] == "PORT", line
        self.host = f"127.0.0.1:{line[1]}"

    def peak(self):
        """The most memory that it ever had, in bytes."""
        for line in pathlib.Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise ValueError("no VmHWM")

    def names(self, folder=""):
        return sorted(path.name for path in self.root.joinpath(folder).iterdir())


@contextlib.contextmanager
def serving(*options):
    with tempfile.TemporaryDirectory() as scratch:
        root = pathlib.Path(scratch, "root")
        root.mkdir()
        server = Server(root, *options)
        server.scratch = pathlib.Path(scratch)
        try:
            yield server
        finally:
            server.process.stdin.close()
            server.process.wait(DEADLINE)


def anybody():
    return serving("uploads_by_anybody=yes")


def texts(driver, selector):
    """The texts of elements, at one moment: rows are replaced by those of a newer page."""
    every = "return [...document.querySelectorAll(arguments[0])].map(found => found.textContent)"
    return driver.execute_script(every, selector)


def rows(driver):
    return [name.removesuffix("/") for name in texts(driver, "tbody td:first-child a")]


def states(driver):
    return texts(driver, ".uploads .state")


def choose(driver, *paths, folder=False):
    inputs = driver.find_elements(By.CSS_SELECTOR, "input[type=file]")
    chosen = [field for field in inputs if field.get_property("webkitdirectory") == folder]
    chosen[0].send_keys("\n".join(str(path) for path in paths))


def press(driver, text):
    """Presses a button of the dialog, or else of the page."""
    inside = "//dialog" if driver.find_elements(By.TAG_NAME, "dialog") else ""
    driver.find_element(By.XPATH, f"{inside}//button[.='{text}']").click()


def ask_row(driver, action, name):
    """Presses a button of a row."""
    def pressed(driver):
        for button in driver.find_elements(By.CSS_SELECTOR, "tbody .act button"):
            if button.get_attribute("aria-label") == f"{action} {name}":
                button.click()
                return True
        return False

    until(driver, pressed)


def no_dialog(driver):
    return not driver.find_elements(By.TAG_NAME, "dialog")


def a_large_file_takes_no_memory(driver):
    with anybody() as server:
        large = server.scratch / "large.bin"
        with large.open("wb") as file:
            for number in range(200):
                file.write(bytes([number]) * MIB)
        driver.get(f"http://{server.host}/")
        choose(driver, large)
        until(driver, lambda d: states(d) == ["done"])
        until(driver, lambda d: rows(d) == ["large.bin"])
        stored = server.root / "large.bin"
        assert stored.stat().st_size == 200 * MIB
        assert subprocess.run(["cmp", large, stored]).returncode == 0
        assert not stored.stat().st_mode & 0o111
        assert server.peak() < 32 * MIB, server.peak()


def a_folder_comes_with_all_that_is_in_it(driver):
    with anybody() as server:
        folder = server.scratch / "many \u00e4"
        for number in range(50):
            path = folder / f"d{number % 3}" / f"file{number}#?%.txt"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(str(number))
        folder.joinpath("empty").mkdir()
        driver.get(f"http://{server.host}/")
        choose(driver, folder, folder=True)
        until(driver, lambda d: states(d) == ["done"] * 50)
        for number in range(50):
            stored = server.root / "many \u00e4" / f"d{number % 3}" / f"file{number}#?%.txt"
            assert stored.read_text() == str(number), stored
        until(driver, lambda d: rows(d) == ["many \u00e4"])
        # The same once more: all of them exist, and the user is asked once.
        choose(driver, folder, folder=True)
        until(driver, lambda d: not no_dialog(d))
        driver.find_element(By.CSS_SELECTOR, "dialog .option input").click()
        press(driver, "Skip")
        until(driver, lambda d: states(d)[50:] == ["not uploaded"] * 50)
        # Dropped, with the folder that is empty.
        drop(driver, folder / "empty", folder / "d1")
        until(driver, lambda d: states(d)[100:] == ["done"] * 18)
        until(driver, lambda d: sorted(rows(d)) == ["d1", "empty", "many \u00e4"])
        assert len(server.names("d1")) == 17 and server.names("empty") == []


def drop(driver, *paths):
    data = {"items": [], "files": [str(path) for path in paths], "dragOperationsMask": 1}
    for kind in ("dragEnter", "dragOver", "drop"):
        event = {"type": kind, "x": 300, "y": 150, "data": data}
        driver.execute_cdp_cmd("Input.dispatchDragEvent", event)


def a_name_that_exists_is_asked_about(driver):
    with anybody() as server:
        server.root.joinpath("a.txt").write_text("old")
        for size, answer, text in ((3, "Skip", "old"), (3, "Cancel", "old"), (3, "Replace", "new"),
                                   (MIB, "Skip", "new"), (MIB, "Replace", "x" * MIB)):
            local = server.scratch / "a.txt"
            local.write_text("new" if size == 3 else "x" * size)
            driver.get(f"http://{server.host}/")
            choose(driver, local)
            until(driver, lambda d: not no_dialog(d))
            assert "a.txt exists already" in driver.find_element(By.TAG_NAME, "dialog").text
            driver.save_screenshot(str(DIR / "uploads-exists.png"))
            press(driver, answer)
            end = "done" if answer == "Replace" else "not uploaded"
            until(driver, lambda d: states(d) == [end])
            assert server.root.joinpath("a.txt").read_text() == text, (size, answer)


def a_connection_that_is_lost_leaves_nothing(driver):
    with anybody() as server:
        local = server.scratch / "large.bin"
        local.write_bytes(b"x" * 20 * MIB)
        driver.get(f"http://{server.host}/")
        slow = {"offline": False, "latency": 0, "downloadThroughput": -1,
                "uploadThroughput": 2 * MIB}
        driver.execute_cdp_cmd("Network.enable", {})
        try:
            driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow)
            # One that the user gives up, and one whose server goes.
            choose(driver, local)
            until(driver, lambda d: "%" in states(d)[0] and states(d)[0] != "0 %")
            driver.save_screenshot(str(DIR / "uploads-progress.png"))
            assert server.names() == [], server.names()
            press(driver, "Cancel")
            until(driver, lambda d: states(d) == ["not uploaded"])
            choose(driver, local)
            until(driver, lambda d: "%" in states(d)[1] and states(d)[1] != "0 %")
            server.process.send_signal(signal.SIGKILL)
            until(driver, lambda d: states(d)[1] == "The connection was lost.")
            assert server.names() == [], server.names()
        finally:
            slow["uploadThroughput"] = -1
            driver.execute_cdp_cmd("Network.emulateNetworkConditions", slow)


def folders_are_made_and_entries_renamed_and_deleted(driver):
    with anybody() as server:
        server.root.joinpath(TRICK).write_text("x")
        server.root.joinpath("full").mkdir()
        server.root.joinpath("full", "inside").write_text("x")
        driver.get(f"http://{server.host}/")
        press(driver, "New folder")
        field = driver.find_element(By.CSS_SELECTOR, "dialog input")
        for bad in ("a/b", "..", "\u00e4" * 128):
            field.clear()
            field.send_keys(bad, Keys.ENTER)
            problem = driver.find_element(By.CSS_SELECTOR, "dialog .bad").text
            assert problem in ("This name cannot be used.", "The name is too long."), problem
        field.clear()
        field.send_keys(TRICK.replace(".txt", ""), Keys.ENTER)
        until(driver, lambda d: len(rows(d)) == 3)
        assert set(rows(driver)) == {TRICK.replace(".txt", ""), "full", TRICK}, rows(driver)
        ask_row(driver, "Rename", TRICK)
        driver.save_screenshot(str(DIR / "uploads-rename.png"))
        field = driver.find_element(By.CSS_SELECTOR, "dialog input")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys("b #1 100%.txt", Keys.ENTER)
        until(driver, lambda d: "b #1 100%.txt" in rows(d))
        # A name that exists is asked about.
        server.root.joinpath("old.txt").write_text("old")
        ask_row(driver, "Rename", "b #1 100%.txt")
        field = driver.find_element(By.CSS_SELECTOR, "dialog input")
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys("old.txt", Keys.ENTER)
        until(driver, lambda d: "old.txt exists already." in d.find_element(By.TAG_NAME, "dialog").text)
        press(driver, "Cancel")
        assert server.root.joinpath("old.txt").read_text() == "old"
        for name in ("full", TRICK.replace(".txt", "")):
            ask_row(driver, "Delete", name)
            assert f"Delete the folder {name} and all" in driver.find_element(By.TAG_NAME, "dialog").text
            press(driver, "Delete")
            until(driver, lambda d: name not in rows(d))
        ask_row(driver, "Delete", "b #1 100%.txt")
        driver.find_element(By.TAG_NAME, "dialog").send_keys(Keys.ESCAPE)
        until(driver, no_dialog)
        assert "b #1 100%.txt" in server.names()
        assert driver.execute_script("return window.hacked") is None


def it_works_on_a_phone(driver):
    with anybody() as server:
        server.root.joinpath("a long name of a file that has many words in it.txt").write_text("x")
        server.root.joinpath("x" * 200).write_text("x" * 3000)
        server.root.joinpath("folder").mkdir()
        metrics = {"width": 360, "height": 740, "deviceScaleFactor": 2, "mobile": True}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        try:
            driver.get(f"http://{server.host}/")
            choose(driver, __file__)
            until(driver, lambda d: states(d) == ["done"])
            until(driver, lambda d: "uploads.py" in rows(d))
            width = driver.execute_script("return [innerWidth, document.documentElement.scrollWidth]")
            assert width == [360, 360], width
            for button in driver.find_elements(By.TAG_NAME, "button"):
                assert button.size["height"] >= 44, (button.text, button.size)
            driver.save_screenshot(str(DIR / "uploads-phone.png"))
            ask_row(driver, "Delete", "folder")
            driver.save_screenshot(str(DIR / "uploads-phone-delete.png"))
            press(driver, "Delete")
            until(driver, lambda d: "folder" not in rows(d))
        finally:
            driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def a_password_is_asked_for_before_a_large_file_is_sent(driver):
    with tempfile.TemporaryDirectory() as secrets:
        passwords = pathlib.Path(secrets, "passwords")
        user = "joe:mydomain.com:"
        line = user + hashlib.md5((user + "secret").encode()).hexdigest() + "\n"
        passwords.write_text(line)
        with serving(f"dav_auth_file={passwords}") as server:
            guarded = server.root / "guarded"
            guarded.mkdir()
            guarded.joinpath(".htpasswd").write_text(line)
            large = server.scratch / "large.bin"
            large.write_bytes(b"x" * 3 * MIB)
            # Nobody is there to be asked, so the browser learns the password here.
            driver.get(f"http://joe:secret@{server.host}/guarded/")
            choose(driver, large)
            until(driver, lambda d: states(d) == ["done"])
            assert guarded.joinpath("large.bin").stat().st_size == 3 * MIB
            press(driver, "New folder")
            driver.find_element(By.CSS_SELECTOR, "dialog input").send_keys("new", Keys.ENTER)
            until(driver, lambda d: rows(d) == ["..", "new", "large.bin"])


def a_page_without_scripts_has_forms():
    with browser(scripts=False) as driver, anybody() as server:
        for name in ("a.txt", "b.txt"):
            server.scratch.joinpath(name).write_text(name)
        driver.get(f"http://{server.host}/?nd")
        driver.save_screenshot(str(DIR / "uploads-plain.png"))
        paths = [str(server.scratch / name) for name in ("a.txt", "b.txt")]
        driver.find_element(By.NAME, "file").send_keys("\n".join(paths))
        press(driver, "Upload")
        until(driver, lambda d: rows(d) == ["b.txt", "a.txt"])
        assert driver.current_url.endswith("/?nd"), driver.current_url
        driver.find_element(By.NAME, "folder").send_keys(TRICK)
        press(driver, "Create")
        until(driver, lambda d: rows(d) == [TRICK, "b.txt", "a.txt"])
        driver.find_element(By.NAME, "file").send_keys(paths[0])
        press(driver, "Upload")
        until(driver, lambda d: "exists already" in texts(d, "body")[0])
        driver.save_screenshot(str(DIR / "uploads-refused.png"))
        driver.find_element(By.LINK_TEXT, "Back to the list").click()
        until(driver, lambda d: "a.txt" in rows(d))


def the_page_as_it_is_seen(driver):
    with anybody() as server:
        for name in ("notes.txt", "photo.jpg", "song.mp3", "film.mp4", "data.zip", "page.html"):
            server.root.joinpath(name).write_text(name * 40)
        server.root.joinpath("Pictures").mkdir()
        for number in (10, 9):
            server.root.joinpath(f"file{number}").write_text("x")
        os.utime(server.root / "notes.txt", (10**9, 10**9))
        there = {"timezoneId": "Asia/Kolkata"}
        driver.execute_cdp_cmd("Emulation.setTimezoneOverride", there)
        driver.get(f"http://{server.host}/")
        assert texts(driver, "th")[:3] == ["Name \u25b2", "Modified", "Size"], texts(driver, "th")
        # By the clock of who looks, also once the rows are new.
        assert "2001-09-09 07:16" in texts(driver, "time"), texts(driver, "time")
        choose(driver, __file__)
        until(driver, lambda d: states(d) == ["done"])
        until(driver, lambda d: "uploads.py" in rows(d))
        assert "2001-09-09 07:16" in texts(driver, "time"), texts(driver, "time")
        assert rows(driver)[2:6] == ["file9", "file10", "film.mp4", "notes.txt"], rows(driver)
        driver.save_screenshot(str(DIR / "uploads.png"))
        # The order stays on the way into a folder, and back.
        driver.find_element(By.PARTIAL_LINK_TEXT, "Size").click()
        until(driver, lambda d: d.current_url.endswith("/?sa"))
        driver.find_element(By.PARTIAL_LINK_TEXT, "Pictures").click()
        until(driver, lambda d: d.current_url.endswith("/Pictures/?sa"))
        assert "This folder is empty." in texts(driver, "tbody")[0]
        driver.find_element(By.PARTIAL_LINK_TEXT, "../").click()
        until(driver, lambda d: d.current_url.endswith("/?sa") and "Pictures" in rows(d))
        ask_row(driver, "Delete", "Pictures")
        press(driver, "Delete")
        until(driver, lambda d: "Pictures" not in rows(d))
        for entry in driver.get_log("browser"):
            assert "Content Security Policy" not in entry["message"], entry


def main():
    for dark in (False, True):
        with browser(dark) as driver:
            for test in (
                the_page_as_it_is_seen,
                a_large_file_takes_no_memory,
                a_folder_comes_with_all_that_is_in_it,
                a_name_that_exists_is_asked_about,
                folders_are_made_and_entries_renamed_and_deleted,
                it_works_on_a_phone,
                a_password_is_asked_for_before_a_large_file_is_sent,
                a_connection_that_is_lost_leaves_nothing,
            )[: None if not dark else 1]:
                print(f"{test.__name__}{' (dark)' if dark else ''} ... ", end="", flush=True)
                test(driver)
                print("ok")
        if not dark:
            keep_light(DIR)
    print("a_page_without_scripts_has_forms ... ", end="", flush=True)
    a_page_without_scripts_has_forms()
    print("ok")


main()
