"""What may be released under which licence."""

from __future__ import annotations

import json
import shutil

import pytest

from dataengine.data.presets import load_preset, preset_names
from dataengine.errors import UserError
from dataengine.export.release.finished_run import read_run
from dataengine.export.release.licenses import LICENSES, Source, conflicts, find_license, release_license


def against(source: str, release: str) -> list[str]:
    return conflicts([Source("scenes", "DIOR", source)], release_license(release))


@pytest.mark.parametrize(
    ("source", "release"),
    [
        ("CC BY 4.0", "cc-by-4.0"),
        ("CC0", "mit"),
        ("cc-by-4.0", "cc-by-nc-4.0"),
        ("academic use", "CC-BY-NC-4.0"),
        ("CC-BY-SA-4.0", "cc-by-sa-4.0"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-sa-4.0"),
    ],
)
def test_a_release_that_keeps_the_conditions_of_its_sources_is_allowed(source, release):
    assert against(source, release) == []


@pytest.mark.parametrize(
    ("source", "release", "why"),
    [
        ("academic use", "cc-by-4.0", "may not be used commercially"),
        ("CC BY-NC 4.0", "cc0-1.0", "may not be used commercially"),
        ("CC BY-ND 4.0", "cc-by-4.0", "may not be changed"),
        ("CC BY-NC-ND 4.0", "cc-by-nc-4.0", "may not be changed"),
        ("CC BY-SA 4.0", "cc-by-4.0", "requires the same licence"),
        ("cc-by-nc-sa-4.0", "cc-by-nc-4.0", "requires the same licence"),
        ("CC BY 4.0", "cc0-1.0", "requires attribution"),
        ("", "cc-by-4.0", "no known licence"),
        ("see our terms", "cc-by-nc-4.0", "'see our terms', which is not in the table"),
    ],
)
def test_a_release_that_drops_a_condition_is_not_and_the_sentence_names_what_and_why(source, release, why):
    [sentence] = against(source, release)
    assert sentence.startswith("the scenes (DIOR)")
    assert why in sentence


def test_every_source_is_judged_for_itself():
    sources = [Source("renderer", "a", "cc-by-4.0"), Source("layouts", "b", ""), Source("scenes", "c", "academic use")]
    assert [s.split("(")[1][0] for s in conflicts(sources, LICENSES["CC-BY-4.0"])] == ["b", "c"]


def test_all_packaged_presets_state_a_licence_that_is_known():
    for name in preset_names():
        assert find_license(load_preset(name).licence) is not None, name


@pytest.mark.parametrize("name", ["my terms", "academic use", ""])
def test_a_release_needs_a_licence_whose_conditions_are_known(name):
    with pytest.raises(UserError, match=r"--license .*choose one of cc0-1\.0"):
        release_license(name)


@pytest.mark.parametrize(
    ("licenses", "scenes", "known"),
    [(["CC BY 4.0"], None, "CC BY 4.0"), (["CC BY 4.0", "CC0"], None, ""), (["CC BY 4.0"], "elsewhere", "")],
)
def test_layouts_have_the_licence_of_their_images_where_all_scenes_tell_it(
    painted_run, tmp_path, licenses, scenes, known
):
    """The licence of --data, which its images carry; controls: images of two licences, scenes of other data."""
    run = tmp_path / "run"
    shutil.copytree(painted_run, run)
    records = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    for i, record in enumerate(records):
        record["scene_license"] = licenses[i % len(licenses)]
    (run / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    recipe = json.loads((run / "recipe.json").read_text())
    recipe["recipe"] |= {"dataset": None, "scenes": scenes}
    (run / "recipe.json").write_text(json.dumps(recipe))
    assert [source.license for source in read_run(run).sources if source.what == "layouts"] == [known]


def test_a_real_image_named_like_a_generated_scene_keeps_its_licence(painted_run, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(painted_run, run)
    records = [json.loads(line) for line in (run / "manifest.jsonl").read_text().splitlines()]
    for i, record in enumerate(records):
        record |= {"scene": f"generated:{i}@3,4", "scene_license": "CC BY 4.0"}
    (run / "manifest.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    released = read_run(run)
    assert {record.provenance.license for record in released.records} == {"CC BY 4.0"}
    assert {source.license for source in released.sources if source.what == "scenes"} == {"CC BY 4.0"}
    assert not any(source.what == "scene renderer" for source in released.sources)
