"""The first lines of a report, and its progress where there is no terminal."""

from __future__ import annotations

from dataengine.evaluate import commands
from dataengine.evaluate.report import Section, write_report
from dataengine.evaluate.results import Column, Figure, Result, Row
from dataengine.evaluate.summary import summary


def table(key: str, better: str, made: float, real: float, control: float) -> Result:
    rows = [("run", "measured", made), ("real images", "reference", real), ("blurred", "control", control)]
    return Result(
        "x", "X", {key: Column(key, better)}, [Row(name, role, 9, {key: Figure(v)}) for name, role, v in rows]
    )


def lines(**values) -> list[str]:
    return summary([
        Section("Fidelity", [table("frechet", "lower", **values)]), Section("Layout score", left_out="no labels."),
        Section("Memorisation", left_out="not given (--training)."),
    ])  # fmt: skip


def test_each_line_sets_a_figure_beside_real_images_and_the_control():
    first, second, third = lines(made=3.0, real=1.0, control=9.0)
    assert (
        first
        == "Realism: frechet 3.000 (real images 1.000, control (blurred) 9.000): between real images and the control."
    )
    assert second == "Labels: not measured: no labels."
    assert third.startswith("Copies of training images: not measured")


def test_a_control_that_is_no_worse_says_that_the_figure_means_nothing():
    """Control: the same figure with another control."""
    assert "not meaningful here" in lines(made=3.0, real=1.0, control=0.5)[0]
    assert lines(made=0.9, real=1.0, control=9.0)[0].endswith("as good as real images.")
    assert lines(made=9.5, real=1.0, control=9.0)[0].endswith("no better than the control.")


def test_a_report_begins_with_its_summary(tmp_path):
    write_report(
        tmp_path / "r.html", "T", {"seed": "0"}, [Section("Fidelity", left_out="x")], summary=["Realism: <b>."]
    )
    page = (tmp_path / "r.html").read_text()
    assert page.index("Realism: &lt;b&gt;.") < page.index("<table>")
    assert (
        "summary"
        not in (write_report(tmp_path / "s.html", "T", {}, []) or (tmp_path / "s.html").read_text()).split("</style>")[
            1
        ]
    )


def test_progress_is_told_in_lines_without_a_terminal(capsys, monkeypatch):
    monkeypatch.setattr(commands, "LINE_S", 0.0)
    assert list(commands._bar(False)([1, 2, 3], "generated")) == [1, 2, 3]
    assert capsys.readouterr().err.splitlines()[0] == "generated: 3"
    assert list(commands._bar(True)([1, 2], "generated")) == [1, 2]
    assert capsys.readouterr().err == ""
