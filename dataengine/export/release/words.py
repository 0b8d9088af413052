"""What the card says in sentences: how the images were made, filtered and divided, and what they are not good for."""

from __future__ import annotations

from collections.abc import Sequence

from dataengine.engine.record import Record
from dataengine.evaluate.results import Result
from dataengine.export.release.finished_run import FinishedRun
from dataengine.export.release.licenses import License

FEW = 50  # objects, below which a class is called rare


def told(run: FinishedRun, content: dict, splits: dict[str, list[Record]], copies: Result | None) -> dict:
    """What the card's template needs beside `release.json`."""
    records = [record for part in splits.values() for record in part]
    objects = content["objects"]
    flags = [flag for record in records for flag in record.labels.difficult.tolist()]
    return {
        "what": _made_how(run, records),
        "boxes": "oriented boxes" if run.kind == "obb" else "horizontal boxes",
        "n_objects": sum(map(sum, (part.values() for part in objects.values()))),
        "difficult": sum(flags) / max(1, len(flags)),
        "table": [
            {"name": name, "train": objects["train"][name], "val": objects.get("val", {}).get(name, 0)}
            for name in run.classes
        ],
        "recipe": {key: value for key, value in run.recipe.items() if value not in (None, {}, False)},
        "split_words": _split(content),
        "filter_words": _filter(run),
        "acceptance": run.report["classes"],
        "copies_words": _copies(run, content, copies),
        "copies": copies,
        "conflicts": content["against_licenses"],
    }


def limits(run: FinishedRun, splits: dict[str, list[Record]], val: float) -> list[str]:
    """Known limits, one sentence each."""
    shown = dict.fromkeys(run.classes, 0)
    for part in splits.values():
        for record in part:
            for name in record.labels.names():
                shown[name] += 1
    missing = [name for name, n in shown.items() if n == 0]
    rare = [f"{name} ({n})" for name, n in shown.items() if 0 < n < FEW]
    found = [
        "All of it, or all objects in it, are generated: a detector should be judged on real images only.",
        "How much these images help a detector depends on the real data beside them; measure it before use "
        "(`dataengine evaluate lift`).",
    ]
    if run.recipe["filter"] == "off":
        found.append("No detector looked at the images (filter: off), so nothing says whether they show their labels.")
    else:
        found.append(
            "The filter keeps what its own detector finds: of objects that it tends to miss, those are left that are "
            "drawn as it likes them; others are taken out of their images, or marked difficult."
        )
    if missing:
        found.append(f"No object of {', '.join(missing)} is in it.")
    if rare:
        found.append(f"Few objects of {', '.join(rare)} are in it.")
    if run.recipe["model"] is None:
        found.append(
            "The packaged models are small: scenes that they draw are plainer than real ones, and small objects are "
            "coarse."
        )
    if any(not record.provenance.generated for part in splits.values() for record in part):
        found.append("Objects were painted into real images, which show whatever they showed before, people too.")
    if not val:
        found.append("There is no validation part.")
    return found


def notes(content: dict, license: License) -> list[str]:
    """What the user should know of the release just made."""
    found = [f"against licences: {sentence}" for sentence in content["against_licenses"]]
    if leaks := content["left_out"]["leaks"]:
        total = leaks + sum(content["splits"].values())
        found.append(f"{leaks} of {total} images are left out: their layouts and scenes lie on both sides of the split")
    if content["splits"].get("val", 0) and abs(
        content["splits"]["val"] / sum(content["splits"].values()) - content["val"]
    ) > (content["val"] / 2):
        found.append(
            f"{content['splits']['val']} images are validated, not {content['val']:.0%}: more would have to be left out"
        )
    return found


def _made_how(run: FinishedRun, records: Sequence[Record]) -> str:
    painted = sum(not record.provenance.generated for record in records)
    if painted == 0:
        return "all pixels are generated"
    if painted == len(records):
        return "generated objects are painted into real images"
    return f"all pixels of {len(records) - painted} are generated; in {painted} objects are painted into real images"


def _split(content: dict) -> str:
    if not content["val"]:
        return "All images are for training."
    group = content["group"]
    alike = f" Sources that the expression `{group}` finds to be alike stay together, too." if group else ""
    lost = content["left_out"]["leaks"]
    left = f" {lost} images whose sources lie on both sides are left out of both." if lost else ""
    return (
        "No real image whose layout was used again, and no scene, lies on both sides of train and validation, nor do "
        f"two images of one seed (`layout_from`, `scene` and `seed` of each image).{alike}{left}"
    )


def _filter(run: FinishedRun) -> str:
    report, calibration = run.report, run.calibration
    kept = f"{report['accepted']} of {report['tried']} images were kept ({report['acceptance']:.1%})"
    why = ", ".join(f"{n} for {reason}" for reason, n in report["dropped_for"].items())
    kept += f"; dropped: {why}." if why else "."
    if calibration is None:
        return f"No filter. {kept}"
    return (
        f"A detector looks at each image (rule: `{run.recipe['filter']}`). {kept} The same rule passes "
        f"{calibration['pass_share']:.1%} of {calibration['images']} real images, "
        f"{calibration['shuffled_pass_share']:.1%} of them with another image's labels and "
        f"{calibration['smudged_pass_share']:.1%} with their objects smudged."
    )


def _copies(run: FinishedRun, content: dict, copies: Result | None) -> str:
    if copies is None:
        why = (
            "the packaged models come without their training images"
            if run.recipe["model"] is None
            else "the training images were not given"
        )
        return f"**Not checked**: {why}, so nothing here says that no image is a near copy of one."
    dropped, share = content["left_out"]["copies"], copies.value("generated", "nearer")
    found = f"{dropped} images were left out for it." if dropped else f"{share:.1%} are; none was left out for it."
    return (
        "Each image was compared with the training images. An image counts as a near copy when it is nearer to one "
        f"than 99 % of held-out real images are. {found}"
    )
