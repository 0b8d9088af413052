"""A local server with the paths of GitHub's trees and of Zenodo's records, which serves small data sets."""

from __future__ import annotations

import hashlib
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from urllib.parse import unquote, urlsplit

from model_host import ModelHost, blob

COMMIT = "e" * 40


class DataHost(ModelHost):
    """folder: `REPOSITORY/...` of a repository on GitHub, and `NUMBER/...` of a record on Zenodo. See `ModelHost` for
    what can be broken; files are named by their paths below `folder`."""

    truncated = False

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = unquote(urlsplit(request.path).path)
        if path.startswith("/repos/") and path.endswith("/commits/HEAD"):
            return self.send_json(request, {"sha": COMMIT})
        if path.startswith("/repos/") and f"/git/trees/{COMMIT}" in path:
            repository = path.removeprefix("/repos/").partition("/git/")[0]
            return self.send_json(request, {"tree": self.tree(repository), "truncated": self.truncated})
        if path.startswith("/repos/"):
            return self.send_json(request, {"license": self.licence and {"spdx_id": self.licence}})
        if path.startswith("/api/records/") and path.endswith("/content"):
            number, _, name = path.removeprefix("/api/records/").removesuffix("/content").partition("/files/")
            return self.send_file(request, f"{number}/{name}")
        if path.startswith("/api/records/"):
            return self.send_json(request, self.record(path.removeprefix("/api/records/")))
        if f"/{COMMIT}/" in path:
            return self.send_file(request, path.removeprefix("/").replace(f"{COMMIT}/", ""))
        return request.send_error(404)

    def tree(self, repository: str) -> list[dict]:
        root = self.folder / repository
        files = sorted(file for file in root.rglob("*") if file.is_file())
        entries = [{"path": "rotate_json", "type": "tree", "sha": "0" * 40}]
        for file in files:
            content = file.read_bytes()
            path = file.relative_to(root).as_posix()
            entries.append({"path": path, "type": "blob", "size": len(content), "sha": blob(content)})
        return entries

    def record(self, number: str) -> dict:
        files = []
        for file in sorted((self.folder / number).iterdir()):
            url = f"{self.url}/api/records/{number}/files/{file.name}/content"
            checksum = f"md5:{hashlib.md5(file.read_bytes()).hexdigest()}"
            files.append({"key": file.name, "size": file.stat().st_size, "checksum": checksum, "links": {"self": url}})
        return {"id": int(number), "metadata": {"license": {"id": "cc-by-4.0"}}, "files": files}

    def content(self, name: str) -> bytes:
        return (Path(self.folder) / name).read_bytes()
