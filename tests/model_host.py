"""A local server with the paths of the model hub and of GitHub, which serves small files and counts what it sends."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

COMMITS = {"Sonetto702/AeroGen": "a" * 40, "Sonettoo/AeroGen": "b" * 40, "openai/clip-vit-large-patch14": "c" * 40}
TOKENIZER = ("vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json")
HUB_FILES = {"Sonetto702/AeroGen": ("aerogen_diorr_last.ckpt",), "openai/clip-vit-large-patch14": TOKENIZER}
VECTORS = "datasets/category_embeddings.npy"


def blob(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


class ModelHost:
    """folder: the files by name. sent: bytes of each file that were sent. ranges: the Range of each request for a file.

    damaged: file whose content is served with one byte changed. breaks_at: {file: byte at which the connection breaks,
    and after which the file is refused}. knows_ranges: whether part of a file can be asked for.
    """

    def __init__(self, folder: Path):
        self.folder, self.sent, self.ranges = folder, defaultdict(int), defaultdict(list)
        self.damaged, self.breaks_at, self.knows_ranges = "", {}, True
        self.licence: str | None = None
        host = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                host.answer(self)

            def log_message(self, *arguments): ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()

    def content(self, name: str) -> bytes:
        return (self.folder / name).read_bytes()

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = urlsplit(request.path).path
        for repository, names in HUB_FILES.items():
            if path == f"/api/models/{repository}":
                assert "blobs=" in request.path
                return self.send_json(request, self.model_info(repository, names))
            for name in names:
                if path == f"/{repository}/resolve/{COMMITS[repository]}/{name}":
                    return self.send_file(request, name)
        github, commit = "/repos/Sonettoo/AeroGen", COMMITS["Sonettoo/AeroGen"]
        name = Path(VECTORS).name
        if path == github:
            return self.send_json(request, {"license": None})
        if path == f"{github}/commits/HEAD":
            return self.send_json(request, {"sha": commit})
        if request.path == f"{github}/contents/{VECTORS}?ref={commit}":
            content = self.content(name)
            raw = f"{self.url}/raw/{commit}/{VECTORS}"
            return self.send_json(request, {"size": len(content), "sha": blob(content), "download_url": raw})
        if path == f"/raw/{commit}/{VECTORS}":
            return self.send_file(request, name)
        return request.send_error(404)

    def model_info(self, repository: str, names: tuple[str, ...]) -> dict:
        files = []
        for name in names:
            content = self.content(name)
            file = {"rfilename": name, "size": len(content), "blobId": blob(content)}
            if name.endswith(".ckpt"):  # of large files, git has only a pointer
                lfs = {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 135}
                file |= {"blobId": "d" * 40, "lfs": lfs}
            files.append(file)
        card = {} if self.licence is None else {"cardData": {"license": self.licence}}
        return {"id": repository, "sha": COMMITS[repository], "siblings": files, "tags": [], **card}

    def send_json(self, request: BaseHTTPRequestHandler, value: dict) -> None:
        body = json.dumps(value).encode()
        request.send_response(200)
        request.send_header("Content-Type", "application/json")
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        request.wfile.write(body)

    def send_file(self, request: BaseHTTPRequestHandler, name: str) -> None:
        content = self.content(name)
        if name == self.damaged:
            content = content[:-1] + bytes([content[-1] ^ 1])
        asked = request.headers.get("Range")
        self.ranges[name].append(asked)
        limit = self.breaks_at.get(name, len(content))
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and self.knows_ranges else 0
        if name in self.breaks_at and self.sent[name] >= limit:
            return request.send_error(503)
        request.send_response(206 if start else 200)
        request.send_header("Content-Length", str(len(content) - start))
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
        request.end_headers()
        part = content[start:limit]
        self.sent[name] += len(part)
        request.wfile.write(part)
        return None
