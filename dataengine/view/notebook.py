"""The page in a notebook: served from the notebook's own process, shown in a frame."""

from __future__ import annotations

import html
import threading
from dataclasses import dataclass, field
from pathlib import Path

from dataengine.errors import UserError, install

FRAMED_BY = "'self' http://localhost:* http://127.0.0.1:* https://localhost:* https://127.0.0.1:* vscode-webview:"


@dataclass
class Shown:
    """A page that is served until `close`, or until the process ends. address: to open in a browser. As the last value
    of a notebook's cell, it is shown there."""

    address: str
    height: int = 720
    _stop: list = field(default_factory=list, repr=False)

    def _repr_html_(self) -> str:
        address = html.escape(self.address, quote=True)
        return (
            f'<iframe src="{address}" width="100%" height="{self.height}" style="border:1px solid #ccc" '
            f'title="dataengine view"></iframe><p><a href="{address}" target="_blank">{address}</a></p>'
        )

    def close(self) -> None:
        """Stop serving the page. Decisions are kept: they are written as they are made."""
        while self._stop:
            self._stop.pop()()


def show(
    folder: str | Path,
    real: str | Path | None = None,
    compare: str | Path | None = None,
    port: int = 0,
    height: int = 720,
) -> Shown:
    """Serve the page of `dataengine view` for a run, a data set or a folder of images, and show it in a notebook.

    real, compare: folders of real images, and of another run or data set. port: 0 for any free one. height: of the
    frame in pixels. The page is served on 127.0.0.1 of the machine that runs the notebook's kernel: elsewhere, forward
    the port first. Raises UserError as the command does.

    >>> show("runs/first")  # doctest: +SKIP
    Shown(address='http://127.0.0.1:41234', height=720)
    """
    try:
        from dataengine.view.serve import server_of
    except ImportError:
        raise UserError(f"the page needs more packages; install them with: {install('view')}") from None
    from dataengine.view.app import Site, make_app
    from dataengine.view.commands import _complete, _gallery

    made, beside, other = (None if one is None else _gallery(Path(one), None) for one in (folder, real, compare))
    site = Site(made=made, real=beside, other=other, frame_ancestors=FRAMED_BY)
    _complete(site, None)
    server, listener, address = server_of(make_app(site), port)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()

    def stop() -> None:
        server.should_exit = True
        thread.join()
        listener.close()
        for end in (*site.stoppers, *([site.neighbours.stop] if site.neighbours is not None else [])):
            end()

    return Shown(address, height, [stop])
