r"""The outcomes of the protocols as one JSON file and one plot, for docs/lift.md.

    python tools/lift_report.py hrplanes=work/hrplanes-100/lift \
        --json docs/lift-outcomes.json --plot docs/images/lift-ap50.png

The plot shows the given outcomes. In the JSON file they replace outcomes with the same settings; all others stay. The
source folders, which differ between machines, are omitted.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from dataengine.evaluate.lift import COPY_PASTE, MORE_REAL, REAL, interval
from dataengine.files import read_text, read_yaml, write_whole

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "detectors"
# settings that identify an outcome
KEY = "data", "options", "scale", "steps", "real_share", "arm", "seed"


def outcomes(data: str, folder: Path) -> list[dict]:
    """Outcomes in a folder of `dataengine evaluate lift`, with their training settings."""
    protocol = json.loads(read_text(folder / "protocol.json"))
    options = next((file.stem for file in CONFIGS.glob("*.yaml") if read_yaml(file) == protocol["options"]), "other")
    settings = {"data": data, "options": options}
    settings |= {name: protocol[name] for name in ("scale", "steps", "real_share")}
    files = sorted(folder.glob("*/seed-*/outcome.json"))
    return [settings | {k: v for k, v in json.loads(read_text(file)).items() if k != "source"} for file in files]


def merged(before: list[dict], now: list[dict]) -> list[dict]:
    """Both lists; later outcomes replace earlier ones with the same key."""
    by_key = {tuple(outcome[key] for key in KEY): outcome for outcome in before + now}
    return list(by_key.values())


def plot(all_outcomes: list[dict], path: Path) -> None:
    """A panel for each data set and detector: AP50 of every training, and the mean of each arm with its interval."""
    from matplotlib.figure import Figure

    def panel(outcome: dict) -> str:
        return f"{outcome['data']}, {outcome['options']}, {outcome['steps']:,} steps, {outcome['real_share']:.0%} real"

    panels = list(dict.fromkeys(map(panel, all_outcomes)))
    figure = Figure(figsize=(5.5 * len(panels), 3.4), layout="constrained")
    for axes, name in zip(np.atleast_1d(figure.subplots(1, len(panels))), panels, strict=True):
        own = [outcome for outcome in all_outcomes if panel(outcome) == name]
        arms = sorted({o["arm"] for o in own}, key=lambda arm: (arm == MORE_REAL, arm != REAL, arm != COPY_PASTE, arm))
        for place, arm in enumerate(arms):
            values = [outcome["AP50"] for outcome in own if outcome["arm"] == arm]
            figure_of_arm = interval(values)
            colour = "#57606a" if arm in (REAL, COPY_PASTE, MORE_REAL) else "#1f6feb"
            axes.plot([place] * len(values), values, "o", color=colour, markersize=3, alpha=0.5)
            axes.plot(place, figure_of_arm.value, "_", color=colour, markersize=22, markeredgewidth=2)
            if np.isfinite(figure_of_arm.low):
                axes.vlines(place, figure_of_arm.low, figure_of_arm.high, color=colour, linewidth=1)
        axes.set_xticks(range(len(arms)), [arm.replace(" ", "\n").replace("-", "-\n") for arm in arms], fontsize=7)
        axes.set_title(name, fontsize=9)
        axes.set_ylabel("AP50")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", metavar="DATA=FOLDER", help="such as hrplanes=work/hrplanes-100/lift")
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--plot", type=Path, required=True)
    arguments = parser.parse_args()
    found = json.loads(read_text(arguments.json)) if arguments.json.exists() else []
    given = []
    for text in arguments.folders:
        data, _, folder = text.partition("=")
        given += outcomes(data, Path(folder))
    write_whole(arguments.json, json.dumps(merged(found, given), indent=1) + "\n")
    plot(given, arguments.plot)


if __name__ == "__main__":
    main()
