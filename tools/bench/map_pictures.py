"""Do pictures follow their maps, and do they still show their labels? Called by `maps.py --pictures`.

follow: agreement of the automatic segmentation (`maps.segment`) of generated pictures with their own map, with another
map, and of pictures without the control, from the same noise. On held-out windows the map is the segmentation of the
real image; over Helsinki it is OpenStreetMap's. Only pixels count that both know.
labels: share of pictures over Helsinki that the packaged filter accepts, and the AP50 of the detector that has no part
in filtering, with and without the control; the same layouts, the same noise.
styles: scenes of the same layouts, map and noise, like dark and like bright images (`synth --like`).
world: the middle of a world over Helsinki, beside its map, as a picture (needs --drawings).
seeds: 16 layouts, each in 8 pictures (P1): distance of pictures of one map to those of several, and the IoU of each
object's detection with its box. Beside it the same detector on real images, which is as good as it can get.
"""

from __future__ import annotations

import sys
from itertools import combinations
from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import train_packaged
from sample_splits import hit_uav_splits, windows

from dataengine import weights
from dataengine.data.draw import contact_sheet, draw
from dataengine.data.layout import Layout
from dataengine.engine.parts import Parts, load_parts
from dataengine.engine.recipe import Recipe
from dataengine.engine.world import load_world
from dataengine.engine.world_worker import WorldSettings
from dataengine.evaluate.average_precision import average_precision
from dataengine.judge.detector import load_detector
from dataengine.judge.verdict import judge, match
from dataengine.maps.ground import load_ground
from dataengine.maps.raster import picture
from dataengine.maps.segment import GROUPS, PAVED, UNKNOWN
from dataengine.render.control import Control, condition_side, group_numbers, grouped_condition, load_control
from dataengine.render.reference import ReferenceSampler, load_encoder
from dataengine.render.renderer import load_renderer
from dataengine.train.ground_control import SEGMENTED_PX, drawn_groups, groups_of
from dataengine.world.noise import Rect

VEHICLES = ("Car", "OtherVehicle")
GSD_M = 0.2  # over Helsinki: within that of HIT-UAV, and a picture is 51 m wide
LABELS_GSD_M = 0.1  # where objects are judged: a car is 45 pixels long, as in HIT-UAV
MIN_IOU, MAX_SPREAD = 0.7, 0.1
WORLD_PX = 512
BATCH = 16


def agreement(found: np.ndarray, wanted: np.ndarray) -> dict[str, float]:
    """Of groups (N, H, W): the share of pixels that agree, the mean IoU over the groups that are wanted, and the mean
    of the shares of paved ground that is paved and of other ground that is not; by chance that is a half."""
    both = (found != UNKNOWN) & (wanted != UNKNOWN)
    found, wanted = found[both], wanted[both]
    ious = []
    for group in range(1, len(GROUPS) + 1):
        if (wanted == group).sum() > 0.01 * len(wanted):
            ious.append(((found == group) & (wanted == group)).sum() / ((found == group) | (wanted == group)).sum())
    paved = [float(((found == PAVED) == side)[(wanted == PAVED) == side].mean()) for side in (True, False)]
    shares = {"pixels": (found == wanted).mean(), "mean IoU": np.mean(ious), "paved or not": np.mean(paved)}
    return {name: round(float(value), 3) for name, value in shares.items()}


def compared(found: np.ndarray, free: np.ndarray, wanted: np.ndarray) -> dict[str, dict[str, float]]:
    """Agreement with the own map, with another's, and without the control."""
    other = np.roll(wanted, len(wanted) // 2, 0)
    return {
        "own map": agreement(found, wanted),
        "another map": agreement(found, other),
        "without the control": agreement(free, wanted),
    }


def held_out(data: Path, n: int, sheets: Path | None) -> dict[str, dict]:
    """Held-out windows of both data sets, with the segmentation of the real image as their map."""
    pipeline = load_renderer(weights.packaged("whole"), "whole")
    network, _ = load_control(str(weights.packaged("control")))
    made = train_packaged.ground_windows(data, pipeline.unet, "test", 1)
    results = {}
    for number, domain in enumerate(pipeline.unet.config.domains):
        index = np.flatnonzero(made.domains == number)[:n]
        layouts, wanted = [made.layouts[i] for i in index], made.groups[index]
        conditions = [grouped_condition(groups, len(GROUPS), condition_side(pipeline.unet)) for groups in wanted]
        control = Control(network, torch.from_numpy(np.stack(conditions)))
        pictures = {}
        for name, led in (("led", control), ("free", None)):
            pictures[name] = [
                image
                for k in range(0, len(index), BATCH)
                for image in pipeline(
                    layouts[k : k + BATCH], index[k : k + BATCH].tolist(), domain,
                    control=led and led.part(range(len(index))[k : k + BATCH]),
                )
            ]  # fmt: skip
        gsd_m = train_packaged.TYPICAL_GSD_M[domain]
        found = {
            name: np.stack([
                groups_of(image, layout, layout.acquisition.gsd_m or gsd_m, domain == "hit-uav", VEHICLES)
                for image, layout in zip(images, layouts, strict=True)
            ])
            for name, images in pictures.items()
        }  # fmt: skip
        results[domain] = {"pictures": len(index)} | compared(found["led"], found["free"], wanted)
        if sheets is not None:
            rows = [[drawn_groups(groups, 256) for groups in wanted[:8]], pictures["led"][:8], pictures["free"][:8]]
            Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(sheets / f"{domain}.png")
    return results


def parts_over(file: Path, control: str | None, gsd_m: float = GSD_M) -> Parts:
    """Parts of a run of HIT-UAV's classes over a map."""
    recipe = {"dataset": "hit-uav", "layouts": "map", "map": file, "map_gsd": gsd_m, "control": control}
    return load_parts(Recipe(**recipe, filter="drop"))


def painted(parts: Parts, layouts, seeds):
    """Pictures with their labels, in batches."""
    done = []
    for k in range(0, len(layouts), BATCH):
        canvases = parts.canvases.draw(layouts[k : k + BATCH], seeds[k : k + BATCH])
        done += parts.renderer.paint(canvases, seeds[k : k + BATCH], parts.paint_settings(parts.recipe))
    return done


def over_map(file: Path, n: int, sheets: Path | None) -> dict[str, dict]:
    """Whether scenes over a map of OpenStreetMap follow it."""
    parts = parts_over(file, None)
    assert parts.control is not None, parts.notes
    layouts, seeds = [parts.sampler.sample(np.random.default_rng((0, i))) for i in range(n)], list(range(n))
    wanted, scenes = np.stack([_groups(parts, layout) for layout in layouts]), {}
    for name, control in (("led", parts.control), ("free", None)):
        parts.canvases.control = control
        scenes[name] = [canvas.image for canvas in parts.canvases.draw(layouts, seeds)]
    found = {
        name: np.stack([groups_of(i, x, GSD_M, True, VEHICLES) for i, x in zip(images, layouts, strict=True)])
        for name, images in scenes.items()
    }
    if sheets is not None:
        rows = [[drawn_groups(groups, 256) for groups in wanted[:8]], scenes["led"][:8], scenes["free"][:8]]
        Image.fromarray(np.concatenate([np.concatenate(row, 1) for row in rows])).save(sheets / "over-map.png")
    return {"pictures": n} | compared(found["led"], found["free"], wanted)


def labels_over_map(file: Path, n: int) -> dict[str, dict]:
    """Whether pictures over a map show their labels, with and without the control."""
    parts = parts_over(file, None, LABELS_GSD_M)
    control = parts.control
    layouts = [parts.sampler.sample(np.random.default_rng((0, i))) for i in range(n)]
    counts = np.bincount(np.concatenate([layout.labels for layout in layouts]), minlength=len(parts.classes))
    results = {"objects": dict(zip(parts.classes, counts.tolist(), strict=True))}
    for name, led in (("with the control", control), ("without", None)):
        parts.canvases.control = led
        done = painted(parts, layouts, list(range(n)))
        accepted = float(np.mean([_accepted(parts, each) for each in done]))
        results[name] = {"accepted": round(accepted, 3), "AP50": {k: round(v, 3) for k, v in _ap50(done).items()}}
    return results


def _accepted(parts: Parts, done) -> bool:
    detections = parts.detector.detect([done.image])[0]
    return judge(detections, done.labels, parts.detector.classes, parts.calibration)[1].kept


def _ap50(done) -> dict[str, float]:
    detector = load_detector(weights.packaged("evaluation-detector"), threads=1)
    detections = [detector.detect([each.image])[0] for each in done]
    scored = average_precision(detections, [each.labels for each in done], detector.classes, (0.5,))
    return {"mean": scored.mean()} | scored.at(0.5)


def seeds_of_maps(file: Path, data: Path, maps: int, seeds: int, sheets: Path | None) -> dict[str, dict]:
    """P1 of the literature's open questions: one layout, many pictures."""
    parts = parts_over(file, None, LABELS_GSD_M)
    layouts = [parts.sampler.sample(np.random.default_rng((1, i))) for i in range(maps)]
    numbers = list(range(maps * seeds))
    done = painted(parts, [layout for layout in layouts for _ in range(seeds)], numbers)
    small = np.stack([cv2.resize(each.image, (32, 32), interpolation=cv2.INTER_AREA) for each in done]).astype(float)
    small = small.reshape(maps, seeds, -1)
    within = np.mean([_distance(*pair) for one in small for pair in combinations(one, 2)])
    between = np.mean([_distance(*pair) for one in small.swapaxes(0, 1) for pair in combinations(one, 2)])
    ious = [
        np.stack([_ious(parts, each.image, each.labels) for each in done[m * seeds : (m + 1) * seeds]]).T
        for m in range(maps)
    ]  # (objects, seeds) of each map
    if sheets is not None:
        shown = [draw(each.image, each.labels) for m in range(4) for each in done[m * seeds : (m + 1) * seeds]]
        contact_sheet(shown, [""] * len(shown), columns=seeds).save(sheets / "seeds.png")
    labels = np.concatenate([layout.labels for layout in layouts])
    return {
        "distance between seeds, of that between maps": round(float(within / between), 3),
        "generated": _by_class(np.concatenate(ious), labels, parts.classes),
        "real images": _real(parts, data),
    }


def world_beside_map(file: Path, sheets: Path, side: int) -> dict[str, int]:
    """The middle of a world over a map, beside the map: WORLD_PX pixels, of a world of `side`."""
    recipe = Recipe(dataset="hit-uav", layouts="map", map=file, map_gsd=GSD_M, filter="off")
    world, _ = load_world(recipe, WorldSettings(side))
    corner = (side - WORLD_PX) // 2
    region = world.region(corner, corner, WORLD_PX, WORLD_PX)
    control, whole = world.ground_map.control, region.labels.select([])
    whole = Layout(whole.boxes, [], whole.classes, (side, side), acquisition=world.layouts.acquisition)
    raster = control.raster(whole, Rect(corner, corner, WORLD_PX, WORLD_PX))
    drawn = picture(raster, load_ground())
    Image.fromarray(np.concatenate([drawn, region.image], 1)).save(sheets / "world.png")
    return {"objects": len(region.labels)}


def styles(file: Path, data: Path, n: int) -> dict[str, dict]:
    """Scenes of the same layouts, map and noise, like the darkest and like the brightest held-out images."""
    parts = parts_over(file, None)
    layouts, seeds = [parts.sampler.sample(np.random.default_rng((2, i))) for i in range(n)], list(range(n))
    wanted = np.stack([_groups(parts, layout) for layout in layouts])
    images = sorted(windows(hit_uav_splits(data)["test"])[0], key=np.mean)
    encode, results = load_encoder(weights.packaged("encoder") / "model.onnx"), {}
    for name, chosen in (("like the darkest", images[:24]), ("like the brightest", images[-24:]), ("free", None)):
        parts.canvases.references = None if chosen is None else ReferenceSampler(encode(chosen))
        scenes = [canvas.image for canvas in parts.canvases.draw(layouts, seeds)]
        found = np.stack([groups_of(i, x, GSD_M, True, VEHICLES) for i, x in zip(scenes, layouts, strict=True)])
        results[name] = {"mean grey": round(float(np.mean(scenes)), 1)} | agreement(found, wanted)
        if chosen is not None:
            results[name]["mean grey of the images"] = round(float(np.mean([i.mean() for i in chosen])), 1)
    return results


def _groups(parts: Parts, layout: Layout) -> np.ndarray:
    """The groups of the map under a layout, uint8 of SEGMENTED_PX."""
    raster = parts.control.raster(layout, Rect(0, 0, *layout.size))
    numbers = group_numbers(raster, parts.control.given.groups)
    return cv2.resize(numbers, (SEGMENTED_PX, SEGMENTED_PX), interpolation=cv2.INTER_NEAREST)


def _distance(one: np.ndarray, other: np.ndarray) -> float:
    return float(np.sqrt(((one - other) ** 2).mean()))


def _ious(parts: Parts, image: np.ndarray, labels) -> np.ndarray:
    """IoU of the detection of each object, 0 where none matches."""
    return match(parts.detector.detect([image])[0], labels, parts.detector.classes).ious


def _by_class(ious: np.ndarray, labels: np.ndarray, classes: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """ious (objects, seeds): share of at least MIN_IOU, share found at all, and mean spread over seeds."""
    rows = {}
    for name, chosen in (("all", labels >= 0), *((c, labels == i) for i, c in enumerate(classes))):
        if chosen.any():
            own = ious[chosen]
            rows[name] = {
                "objects": int(chosen.sum()), f"IoU >= {MIN_IOU}": round(float((own >= MIN_IOU).mean()), 3),
                "found": round(float((own > 0).mean()), 3), "spread": round(float(own.std(1).mean()), 3),
            }  # fmt: skip
    return rows


def _real(parts: Parts, data: Path) -> dict[str, dict[str, float]]:
    """The same on real held-out windows, each once."""
    images, layouts = windows(hit_uav_splits(data)["test"])
    chosen = np.random.default_rng(0).permutation(len(images))[:128]
    index = [layouts[0].classes.index(name) for name in parts.classes]
    ious, labels = [], []
    for i in chosen:
        known = layouts[i].select(np.isin(layouts[i].labels, index))
        ious.append(_ious(parts, images[i], known))
        labels.append(np.array([index.index(label) for label in known.labels], int))
    return _by_class(np.concatenate(ious)[:, None], np.concatenate(labels), parts.classes)


def measure(osm: Path, data: Path, sheets: Path | None, questions: list[str], n: int = 48) -> dict:
    """The figures of the questions asked for."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    if sheets is not None:
        sheets.mkdir(parents=True, exist_ok=True)
    results = {}
    if "held-out" in questions:
        results["held-out"] = held_out(data, n, sheets)
    if "map" in questions:
        results["map"] = over_map(osm / "Helsinki.osm.pbf", n, sheets)
    if "labels" in questions:
        results["labels"] = labels_over_map(osm / "Helsinki.osm.pbf", n)
    if "seeds" in questions:
        results["seeds"] = seeds_of_maps(osm / "Helsinki.osm.pbf", data, 16, 8, sheets)
    if "styles" in questions:
        results["styles"] = styles(osm / "Helsinki.osm.pbf", data, 16)
    if "world" in questions:
        results["world"] = world_beside_map(osm / "Helsinki.osm.pbf", sheets, 2048)
    return results
