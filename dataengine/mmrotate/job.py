"""The training of a detector in another process: `python -m dataengine.mmrotate.job JOB.json`.

The process writes one JSON object a line to its standard output: `step`, `steps` and `loss` after a step, and at the
end `reached`, or `error`, a sentence for the user. What the libraries print goes to standard error.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from typing import IO

from dataengine.errors import UserError
from dataengine.files import parse_json, read_text

ONE_STAGE = ("rtmdet-r", "rotated-fcos", "rotated-retinanet", "h2rbox-v2")  # which have an ONNX form
REPORT_SECONDS = 1.0


def run(job: dict, outlet: IO[str]) -> None:
    """Train, and export to ONNX if the detector has that form.

    job: `exported`, `out` and `settings` for `train_exported`; `onnx`, the folder to write or None; `image_size` of it.
    """
    from dataengine.mmrotate.onnx_export import export_detector
    from dataengine.mmrotate.training import train_exported

    last = 0.0

    def progress(step: int, steps: int, loss: float) -> None:
        nonlocal last
        if (now := time.monotonic()) - last >= REPORT_SECONDS or step == steps:
            _say(outlet, step=step, steps=steps, loss=loss)
            last = now

    trained = train_exported(Path(job["exported"]), Path(job["out"]), progress=progress, **job["settings"])
    if job["onnx"] is not None:
        export_detector(trained.config, trained.checkpoint, job["onnx"], job["image_size"])
    _say(outlet, reached=trained.step)


def _say(outlet: IO[str], **values: object) -> None:
    outlet.write(json.dumps(values) + "\n")
    outlet.flush()  # where nobody reads any more, the training ends; its last checkpoint stays


def main(file: str) -> None:
    outlet = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # what libraries print is no answer
    try:
        run(parse_json(read_text(file)), outlet)
    except UserError as error:
        _say(outlet, error=str(error))
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1])
