"""A release of a run that a person went through: without what was rejected, and its card counts the decisions."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

from dataengine.engine.decided import sha_of
from dataengine.engine.decisions import Change, append
from dataengine.engine.run_folder import RunFolder
from dataengine.export.release.make import make
from dataengine.export.release.verify import verify


def test_a_release_leaves_rejected_images_out_and_counts_decisions(painted_run, settings, tmp_path):
    shutil.copytree(painted_run, tmp_path / "run")
    run = RunFolder(tmp_path / "run")
    records = list(run.records())
    kept = [record for record in records if record.accepted]
    dropped = [record for record in records if not record.accepted]
    moved = kept[2].labels
    objects = [
        {"of": k, "class": name, "box": [box[0] + 2, *box[1:]] if k == 0 else box, "difficult": bool(difficult)}
        for k, (name, box, difficult) in enumerate(
            zip(moved.names(), moved.boxes.tolist(), moved.difficult.tolist(), strict=True)
        )
    ]
    append(run, [
        Change(do="reject", images=[(record.index, sha_of(record)) for record in kept[:2]]),
        Change(do="accept", images=[(record.index, sha_of(record)) for record in dropped[:1]] or [(0, "00")]),
        Change(do="correct", images=[(kept[2].index, sha_of(kept[2]))], objects=objects),
        Change(do="tag", tag="good", images=[(kept[3].index, sha_of(kept[3]))]),
    ])  # fmt: skip
    folder = make(run.path, tmp_path / "release", replace(settings, val=0.0)).folder
    content = json.loads((folder / "release.json").read_text())
    accepted = min(1, len(dropped))
    assert content["by_hand"] == {"rejected": 2, "accepted": accepted, "corrected": 1, "objects": 1}
    released = {path.stem for path in (folder / "images").rglob("*.png")}
    assert released.isdisjoint(record.name for record in kept[:2])
    assert len(released) == len(kept) - 2 + accepted
    card = (folder / "README.md").read_text()
    assert f"A person then rejected 2 images that the filter had kept, accepted {accepted} that" in card
    assert "corrected 1 labels in 1 images" in card
    assert not verify(folder).faults


def test_a_release_without_decisions_says_so(released):
    """Control."""
    assert "by_hand" not in json.loads((released / "release.json").read_text())
    assert "No person changed the result of the filter." in (released / "README.md").read_text()
