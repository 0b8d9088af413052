"""The card of a release: `README.md` in the hub's format, its sentences, and its contact sheet."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.data.draw import contact_sheet, draw
from dataengine.data.layout import Dataset
from dataengine.engine.record import Record
from dataengine.evaluate.copies import undetected
from dataengine.evaluate.results import Result
from dataengine.export.release import marks
from dataengine.export.release.finished_run import FinishedRun
from dataengine.files import write_whole

MAX_SAMPLES = 24  # images on the sheet
MAX_SIDE_PX = 256  # of an image on the sheet
MIN_OBJECTS = 50  # a class with fewer objects is called rare
SAMPLES = "samples.jpg"
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def write_card(folder: Path, content: dict, values: dict) -> None:
    """Write `README.md`. content: of `release.json`. values: further values of the template `card.md.j2`."""
    from huggingface_hub import DatasetCardData
    from jinja2 import Environment, PackageLoader, StrictUndefined

    n, license = sum(content["splits"].values()), values["license"]
    data = DatasetCardData(
        license=license.hub_id,
        pretty_name=content["name"],
        task_categories=["object-detection"],
        annotations_creators="machine-generated",
        size_categories=next((size for most, size in _SIZES if n < most), "10M<n<100M"),
        tags=["synthetic", "oriented-object-detection", "remote-sensing", "aerial-imagery", "dataengine"],
        configs=[
            {
                "config_name": "default",
                "data_files": [
                    {"split": {"val": "validation"}.get(split, split), "path": f"images/{split}/**"}
                    for split in content["splits"]
                ],
            }
        ],
    )
    environment = Environment(
        loader=PackageLoader("dataengine.export.release", "."), undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True,
    )  # fmt: skip
    values = {**content, **values, "n": n, "card_data": data.to_yaml().strip()}
    write_whole(folder / "README.md", environment.get_template("card.md.j2").render(values))


def write_samples(folder: Path, splits: Sequence[Dataset], seed: int) -> None:
    """Write `samples.jpg`: random images with their boxes, also marked as synthetic."""
    samples = [sample for dataset in splits for sample in dataset]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(samples))[:MAX_SAMPLES])
    pictures = []
    for sample in (samples[i] for i in chosen):
        with Image.open(sample.image) as image:
            pictures.append(draw(image, sample.layout, min(1.0, MAX_SIDE_PX / max(sample.layout.size))))
    captions = [f"synthetic {samples[i].name}" for i in chosen]
    kinds = {marks.read_mark(samples[i].image.read_bytes()).source_type for i in chosen}
    kind = marks.PAINTED_INTO if marks.PAINTED_INTO in kinds else marks.GENERATED
    packet = marks.xmp_packet(kind, samples[0].license, "", "dataengine")
    contact_sheet(pictures, captions, classes=splits[0].classes).save(
        folder / SAMPLES, "JPEG", quality=90, xmp=packet.encode()
    )


def card_values(run: FinishedRun, content: dict, splits: dict[str, list[Record]], copies: list[Result]) -> dict:
    """Values for the card's template in addition to `release.json`."""
    records = [record for part in splits.values() for record in part]
    objects = content["objects"]
    flags = [flag for record in records for flag in record.labels.difficult.tolist()]
    return {
        "what": _description(records),
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
        "by_hand_words": _by_hand(content.get("by_hand")),
        "acceptance": run.report["classes"],
        "copies_words": _copies(run, content, copies),
        "copies": copies,
        "conflicts": content["against_licenses"],
    }


def limits(run: FinishedRun, splits: dict[str, list[Record]], val: float, formats: Sequence[str]) -> list[str]:
    """Known limits, one sentence each."""
    records = [record for part in splits.values() for record in part]
    counts = Counter(name for record in records for name in record.labels.names())
    missing = [name for name in run.classes if not counts[name]]
    rare = [f"{name} ({counts[name]})" for name in run.classes if 0 < counts[name] < MIN_OBJECTS]
    sentences = [
        "All images, or all objects in them, are generated: test a detector on real images only.",
        "The benefit for a detector depends on the real data that it is combined with; measure it before use "
        "(`dataengine evaluate lift`).",
    ]
    if run.recipe["filter"] == "off":
        sentences.append("The images are not filtered (filter: off), so they may not show their labels.")
    else:
        sentences.append(
            "The filter keeps objects that its own detector finds. This biases classes that the detector tends to miss "
            "towards easy examples; other objects are removed from their images or marked difficult."
        )
    if missing:
        sentences.append(f"It has no objects of {', '.join(missing)}.")
    if rare:
        sentences.append(f"It has few objects of {', '.join(rare)}.")
    if run.recipe["model"] is None:
        sentences.append(
            "The packaged models are small: generated scenes have less detail than real ones, and small objects are "
            "coarse."
        )
    if any(not record.provenance.generated for record in records):
        sentences.append("Objects are painted into real images, which still show their original content, also people.")
    if not val:
        sentences.append("There is no validation split.")
    ignored = sum(len(run.labels(record).ignored) > 0 for record in records)
    if ignored and {"yolo", "yolo-obb"} & {*formats}:
        sentences.append(
            f"{ignored} images have regions with unknown content. YOLO labels cannot say so, so a detector that is "
            "trained with them takes those regions for background; the other formats hold the regions."
        )
    return sentences


def notes(content: dict) -> list[str]:
    """Messages for the user about a new release."""
    messages = [f"licence conflict: {sentence}" for sentence in content["against_licenses"]]
    if outside := content["left_out"]["outside"]:
        messages.append(f"{outside} objects are left out: they lie outside their images")
    messages += [sentence for sentence in content["limits"] if "YOLO labels" in sentence]
    if leaks := content["left_out"]["leaks"]:
        total = leaks + sum(content["splits"].values())
        messages.append(f"{leaks} of {total} images are left out: their layouts and scenes are in both splits")
    n_val, n = content["splits"].get("val", 0), sum(content["splits"].values())
    if n_val and abs(n_val / n - content["val"]) > content["val"] / 2:
        messages.append(
            f"the validation split has {n_val} images, not {content['val']:.0%}, since more would have to be left out"
        )
    return messages


def _description(records: Sequence[Record]) -> str:
    painted = sum(not record.provenance.generated for record in records)
    if painted == 0:
        return "all pixels are generated"
    if painted == len(records):
        return "generated objects are painted into real images"
    return f"{len(records) - painted} are generated, and in {painted} generated objects are painted into real images"


def _split(content: dict) -> str:
    if not content["val"]:
        return "All images are in the training split."
    group = content["group"]
    together = f" Sources with the same match of `{group}` stay together." if group else ""
    lost = content["left_out"]["leaks"]
    left = f" {lost} images with sources in both splits are left out." if lost else ""
    return (
        "Images with a common layout source, real object, scene or seed (`layout_from`, `objects_from`, `scene` and "
        f"`seed` of each image) are never in both the training and the validation split.{together}{left}"
    )


def _filter(run: FinishedRun) -> str:
    report, calibration = run.report, run.calibration
    kept = f"{report['accepted']} of {report['tried']} images are kept ({report['acceptance']:.1%})"
    why = ", ".join(f"{n} ({reason})" for reason, n in report["dropped_for"].items())
    kept += f"; dropped: {why}." if why else "."
    if calibration is None:
        return f"No filter. {kept}"
    return (
        f"A detector checks each image (rule: `{run.recipe['filter']}`). {kept} The same rule accepts "
        f"{calibration['pass_share']:.1%} of {calibration['images']} real images, "
        f"{calibration['shuffled_pass_share']:.1%} of them with another image's labels and "
        f"{calibration['smudged_pass_share']:.1%} with their objects blurred."
    )


def _by_hand(numbers: dict | None) -> str:
    """What a person changed after the filter."""
    if numbers is None:
        return "No person changed the result of the filter."
    return (
        f"A person then rejected {numbers['rejected']} images that the filter had kept, accepted {numbers['accepted']} "
        f"that it had dropped, and corrected {numbers['objects']} labels in {numbers['corrected']} images. The table "
        "shows the result of the filter alone."
    )


def _copies(run: FinishedRun, content: dict, copies: list[Result]) -> str:
    if not copies:
        why = (
            "the training images of the packaged models are not available"
            if run.recipe["model"] is None
            else "the training images were not given"
        )
        return f"**Not checked**: {why}, so near copies of training images are possible."
    whole, parts = copies
    words = (
        "Each image is compared with the training images. A near copy is nearer to a training image than 99 % of "
        "held-out real images, or shows a part of one, which may be cut out elsewhere, mirrored, turned or lit "
        "differently. "
    )
    dropped, near = content["left_out"]["copies"], whole.value("generated", "nearer")
    if dropped:
        words += f"{dropped} near copies are left out."
    else:
        copied = parts.value("generated", "copied")
        words += f"{near:.1%} are near copies, {copied:.1%} show a copied part; none is left out."
    if why := undetected(parts):
        words += f" The search for copied parts does not work on these images and was left out: {why}."
    return words
