"""Puts a tree on the server and brings it back: webdav4.py URL USER PASSWORD TREE BACK"""

import io
import os
import sys

# This file has the name of the package.
sys.path.pop(0)
from webdav4.client import Client, HTTPError  # noqa: E402
from webdav4.fsspec import WebdavFileSystem  # noqa: E402

url, user, password, tree, back = sys.argv[1:]
client = Client(url, auth=(user, password))


def put_tree(source, target):
    client.mkdir(target)
    for entry in os.scandir(source):
        place = f"{target}/{entry.name}"
        if entry.is_dir():
            put_tree(entry.path, place)
        else:
            client.upload_file(entry.path, place)


def get_tree(source, target):
    os.makedirs(target)
    for entry in client.ls(source):
        place = os.path.join(target, os.path.basename(entry["name"]))
        if entry["type"] == "directory":
            get_tree(entry["name"], place)
        else:
            client.download_file(entry["name"], place)
            assert os.path.getsize(place) == entry["content_length"], entry


put_tree(tree, "tree")
assert client.exists("tree") and client.isdir("tree") and not client.exists("none")
client.copy("tree", "copied ü")
client.move("tree", "moved 漢字 ü")
assert not client.exists("tree")
get_tree("moved 漢字 ü", back)
client.remove("copied ü")

client.upload_fileobj(io.BytesIO(b"content"), "file")
with client.open("file", mode="rb") as file:
    file.seek(3)
    assert file.read() == b"tent"
client.upload_fileobj(io.BytesIO(b"more content"), "file", overwrite=True)
client.remove("file")

drive = WebdavFileSystem(url, auth=(user, password))
with drive.open("fs spec", "wb") as file:
    file.write(b"x" * 100_000)
assert drive.size("fs spec") == 100_000
with drive.open("fs spec", "rb") as file:
    file.seek(99_990)
    assert file.read() == b"x" * 10
drive.mv("fs spec", "other")
drive.rm("other")

try:
    Client(url, auth=(user, "wrong")).ls("")
except HTTPError as error:
    assert error.status_code == 401, error
else:
    raise AssertionError("a wrong password got in")
