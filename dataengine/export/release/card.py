"""The card of a release, `README.md` in the hub's form, with the image that it shows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dataengine.data.draw import contact_sheet, draw
from dataengine.data.layout import Dataset
from dataengine.export.release import marks
from dataengine.files import write_whole

ON_SHEET = 24
SIDE = 256  # pixels, of the longer side on the sheet
SAMPLES = "samples.jpg"
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def write_card(folder: Path, content: dict, told: dict) -> None:
    """Write `README.md`. content: of `release.json`; told: what else the template `card.md.j2` asks for."""
    from huggingface_hub import DatasetCardData
    from jinja2 import Environment, PackageLoader, StrictUndefined

    n, license = sum(content["splits"].values()), told["license"]
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
    told = {**content, **told, "n": n, "card_data": data.to_yaml().strip()}
    write_whole(folder / "README.md", environment.get_template("card.md.j2").render(told))


def write_samples(folder: Path, splits: Sequence[Dataset], seed: int) -> None:
    """`samples.jpg`: images drawn at random with their boxes; the sheet says that they are synthetic, too."""
    samples = [sample for dataset in splits for sample in dataset]
    chosen = np.sort(np.random.default_rng(seed).permutation(len(samples))[:ON_SHEET])
    pictures = []
    for sample in (samples[i] for i in chosen):
        with Image.open(sample.image) as image:
            pictures.append(draw(image, sample.layout, min(1.0, SIDE / max(sample.layout.size))))
    captions = [f"synthetic {samples[i].name}" for i in chosen]
    kinds = {marks.read_mark(samples[i].image.read_bytes()).source_type for i in chosen}
    kind = marks.PAINTED_INTO if marks.PAINTED_INTO in kinds else marks.GENERATED
    packet = marks.xmp_packet(kind, samples[0].license, "", "dataengine")
    contact_sheet(pictures, captions, classes=splits[0].classes).save(
        folder / SAMPLES, "JPEG", quality=90, xmp=packet.encode()
    )
