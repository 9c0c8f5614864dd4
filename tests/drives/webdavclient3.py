"""Puts a tree on the server and brings it back: webdavclient3.py URL USER PASSWORD TREE BACK"""

import sys

from webdav3.client import Client
from webdav3.exceptions import WebDavException

url, user, password, tree, back = sys.argv[1:]
client = Client({"webdav_hostname": url, "webdav_login": user, "webdav_password": password})

client.upload_sync(remote_path="tree", local_path=tree)
assert client.check("tree") and not client.check("none")
client.copy("tree/", "copied/")
client.move("tree/", "moved 漢字 ü/")
assert not client.check("tree")
client.download_sync(remote_path="moved 漢字 ü", local_path=back)
client.clean("copied")
assert "moved 漢字 ü/" in client.list(), client.list()
assert client.info("moved 漢字 ü/")["modified"]
assert client.free() > 0

stranger = Client({"webdav_hostname": url, "webdav_login": user, "webdav_password": "wrong"})
try:
    stranger.list()
except WebDavException:
    pass
else:
    raise AssertionError("a wrong password got in")
