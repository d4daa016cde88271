"""The runner of reproductions: what it measures, keeps, stores and says, and what it refuses to judge."""

from __future__ import annotations

import json
import math
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import jsonschema
import pytest

from longspan import cli
from longspan.errors import LongspanError, UsageError
from longspan.reproductions import harness
from longspan.reproductions.harness import Figures, Run

from .conftest import Toy

SCHEMA = Path(__file__).parents[2] / "docs" / "results" / "schema.json"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["longspan", "reproduce", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_each_seed_is_measured_once_and_all_are_judged(toy: Toy, tmp_path: Path) -> None:
    result = harness.run(toy.slug, out=tmp_path / "out")
    assert [run.seed for run in toy.runs] == [0, 1, 2]
    assert len({run.folder for run in toy.runs}) == 3
    assert result.verdict is not None
    assert result.verdict.outcome == "holds"
    assert result.verdict.reason == "the gain is 0.21"
    assert result.exit_code == 0


def test_the_stored_result_is_of_the_schema_and_names_its_plot(toy: Toy, tmp_path: Path) -> None:
    harness.run(toy.slug, out=tmp_path / "out")
    data = json.loads((tmp_path / "out" / "toy-1.5.json").read_text())
    jsonschema.validate(data, json.loads(SCHEMA.read_text()))
    assert data["figures"]["gain"] == pytest.approx({"mean": 0.21, "low": 0.2, "high": 0.22, "seeds": 3})
    assert data["quick"] is False
    plot = (tmp_path / "out" / data["plot"]).read_text()
    assert ElementTree.fromstring(plot).tag.endswith("svg")
    assert ">seed<" in plot  # letters stay letters
    assert len(plot) < 30_000


def test_a_result_tells_nothing_of_whose_machine_it_was(toy: Toy, tmp_path: Path) -> None:
    harness.run(toy.slug, out=tmp_path / "out")
    text = (tmp_path / "out" / "toy-1.5.json").read_text()
    assert str(tmp_path) not in text
    assert str(Path.home()) not in text or Path.home() == Path("/")


def test_the_same_figures_draw_the_same_plot(toy: Toy, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        harness.run(toy.slug, out=tmp_path / folder)
    first, second = ((tmp_path / folder / "toy-1.5.svg").read_bytes() for folder in ("a", "b"))
    assert first == second


def test_finished_seeds_are_kept_and_more_can_be_added(toy: Toy, tmp_path: Path) -> None:
    harness.run(toy.slug, seeds=2)
    result = harness.run(toy.slug, seeds=4)
    assert [run.seed for run in toy.runs] == [0, 1, 2, 3]
    assert [seed.seed for seed in result.seeds] == [0, 1, 2, 3]
    assert result.seeds[0].figures == {"gain": 0.2, "cost": 3.0}


def test_fresh_measures_anew(toy: Toy) -> None:
    harness.run(toy.slug, seeds=1)
    harness.run(toy.slug, seeds=1, fresh=True)
    assert [run.seed for run in toy.runs] == [0, 0]


def test_another_source_measures_anew(toy: Toy, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    harness.run(toy.slug, seeds=1)
    edited = tmp_path / "toy.py"
    edited.write_text("# changed")
    monkeypatch.setattr(harness, "_source", lambda reproduction: edited)
    harness.run(toy.slug, seeds=1)
    assert len(toy.runs) == 2


def test_seeds_of_other_code_are_kept_but_told(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    harness.run(toy.slug, seeds=1)
    monkeypatch.setattr(harness, "_code", lambda: "other")
    said: list[str] = []
    harness.run(toy.slug, seeds=1, tell=said.append)
    assert len(toy.runs) == 1
    assert "other code of longspan" in said[0]


def test_a_seed_that_raises_is_a_failure_and_only_it_is_tried_again(toy: Toy, tmp_path: Path) -> None:
    works = toy.does

    def breaks(run: Run) -> Figures:
        if run.seed == 1:
            (run.folder / "half").write_text("done")
            raise ValueError("the model\nbroke")
        return works(run)

    toy.does = breaks
    result = harness.run(toy.slug, out=tmp_path / "out")
    assert result.failures == {1: "ValueError: the model broke"}
    assert result.verdict is None
    assert result.exit_code == 1
    assert list((tmp_path / "out").iterdir()) == []  # no verdict over the seeds that happened to survive
    assert "1 of 3 seeds" in harness.problem(result)
    assert "ValueError" in (toy.runs[1].folder / "error.txt").read_text()

    toy.does = lambda run: works(run) | {"half": float((run.folder / "half").exists())}
    again = harness.run(toy.slug, out=tmp_path / "out")
    assert [run.seed for run in toy.runs] == [0, 1, 2, 1]
    assert again.exit_code == 0
    assert again.seeds[1].figures["half"] == 1  # its folder survived


@pytest.mark.parametrize("figures", [{"gain": math.nan}, {"gain": 0.2, "cost": math.inf}, {}, None, {"gain": "high"}])
def test_what_is_no_finite_number_is_a_failure(toy: Toy, figures: Figures) -> None:
    toy.does = lambda run: figures
    result = harness.run(toy.slug, seeds=1)
    assert set(result.failures) == {0}
    assert result.exit_code == 1


def test_an_interrupted_run_keeps_what_was_finished(toy: Toy) -> None:
    works = toy.does

    def interrupted(run: Run) -> Figures:
        if run.seed == 2:
            raise KeyboardInterrupt
        return works(run)

    toy.does = interrupted
    with pytest.raises(KeyboardInterrupt):
        harness.run(toy.slug)
    toy.does = works
    harness.run(toy.slug)
    assert [run.seed for run in toy.runs] == [0, 1, 2, 2]


def test_a_half_written_seed_is_measured_again(toy: Toy) -> None:
    harness.run(toy.slug, seeds=1)
    (toy.runs[0].folder / "figures.json").write_text('{"seed": 0, "fig')
    harness.run(toy.slug, seeds=1)
    assert len(toy.runs) == 2


def test_quick_runs_are_apart_from_full_ones(toy: Toy, tmp_path: Path) -> None:
    toy.does = lambda run: {"gain": -1.0 if run.quick else 1.0}
    harness.run(toy.slug, out=tmp_path)
    full = (tmp_path / "toy-1.5.json").read_text(), (tmp_path / "toy-1.5.svg").read_text()
    result = harness.run(toy.slug, quick=True, out=tmp_path)
    assert len(result.seeds) == 1
    assert result.exit_code == harness.DOES_NOT_HOLD
    assert ((tmp_path / "toy-1.5.json").read_text(), (tmp_path / "toy-1.5.svg").read_text()) == full
    data = json.loads((tmp_path / "toy-1.5.quick.json").read_text())
    assert data["quick"] is True
    assert data["plot"] == "toy-1.5.quick.svg"
    assert (tmp_path / data["plot"]).exists()


@pytest.mark.parametrize(
    ("gain", "code", "said"), [(1, 0, "holds"), (-1, 3, "does not hold at this scale"), (0, 0, "inconclusive")]
)
def test_exit_codes(
    toy: Toy,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    gain: float,
    code: int,
    said: str,
) -> None:
    toy.does = lambda run: {"gain": float(gain)}
    assert command(monkeypatch, "toy-1.5") == code
    out = capsys.readouterr().out
    assert "It gains." in out
    assert f"{said}: the gain is" in out


def test_a_failed_seed_ends_in_one_sentence(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy.does = lambda run: {"gain": 1.0 / run.seed}
    assert command(monkeypatch, "toy-1.5", "--seeds", "2") == 1
    told = capsys.readouterr()
    last = told.err.strip().splitlines()[-1]
    assert last.startswith("longspan: 1 of 2 seeds of toy-1.5 failed (seed 0: ZeroDivisionError")
    assert "Traceback" not in told.err + told.out


def test_ctrl_c_on_the_command_line(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(run: Run) -> Figures:
        raise KeyboardInterrupt

    toy.does = interrupted
    assert command(monkeypatch, "toy-1.5") == 130
    assert "what was finished is kept" in capsys.readouterr().err


def test_a_plot_that_fails_costs_no_figures(toy: Toy, tmp_path: Path) -> None:
    harness.run(toy.slug, out=tmp_path)

    def breaks(figures: object, figure: object) -> None:
        raise RuntimeError("no ink")

    toy.draws = breaks
    result = harness.run(toy.slug, out=tmp_path)
    assert result.exit_code == 1
    assert "no ink" in harness.problem(result)
    assert json.loads((tmp_path / "toy-1.5.json").read_text())["plot"] is None
    assert not (tmp_path / "toy-1.5.svg").exists()  # the old one would show other figures


def test_all_goes_on_after_a_failure(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(run: Run) -> Figures:
        raise LongspanError("There is no model here.")

    first = harness.REPRODUCTIONS[toy.slug]
    fields = {name: getattr(first, name) for name in first.__slots__} | {"slug": "a-first", "measure": missing}
    harness.REPRODUCTIONS["a-first"] = harness.Reproduction(**fields)
    assert command(monkeypatch, "--all", "--quick") == 1
    out = capsys.readouterr().out
    assert re.search(r"a-first +failed .*There is no model here", out)
    assert re.search(r"toy-1.5 +holds", out)


def test_list_shows_stored_verdicts(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(monkeypatch, "--list") == 0
    assert "none yet" in capsys.readouterr().out
    harness.run(toy.slug)
    assert command(monkeypatch, "--list") == 0
    assert "holds, 20" in capsys.readouterr().out


def test_an_unknown_slug_suggests_the_nearest(toy: Toy) -> None:
    with pytest.raises(UsageError, match=r"toy-1.6.*Did you mean 'toy-1.5'"):
        harness.run("toy-1.6")


def test_exactly_one_of_slug_all_and_list(toy: Toy, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(monkeypatch) == 2
    assert command(monkeypatch, "toy-1.5", "--all") == 2


def test_a_folder_that_cannot_be_written_is_known_before_the_work(toy: Toy, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(LongspanError, match="Cannot write"):
        harness.run(toy.slug, out=tmp_path / "file" / "out")
    assert toy.runs == []


def test_a_missing_extra_is_known_before_the_work(
    toy: Toy, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert command(monkeypatch, "toy-1.5") == 1
    assert "pip install 'longspan[eval]'" in capsys.readouterr().err
    assert toy.runs == []


def test_two_runs_at_once_are_refused(toy: Toy) -> None:
    def again(run: Run) -> Figures:
        with pytest.raises(LongspanError, match="another process"):
            harness.run(toy.slug, seeds=1)
        return {"gain": 1.0}

    toy.does = again
    assert harness.run(toy.slug, seeds=1).failures == {}


def test_a_stored_file_that_is_no_result_is_named(toy: Toy) -> None:
    harness.run(toy.slug)
    file = harness.results_home() / "toy-1.5.json"
    file.write_text("[]")
    with pytest.raises(LongspanError, match=re.escape(str(file))):
        harness.stored(toy.slug)


def test_results_of_the_user_come_before_those_of_the_package(
    toy: Toy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(harness, "PACKAGE", tmp_path / "longspan")
    (tmp_path / "longspan").mkdir()
    assert harness.stored(toy.slug) is None
    harness.run(toy.slug, out=tmp_path / "longspan" / "results")
    brought = harness.stored(toy.slug)
    assert brought is not None
    assert brought[1].parent == tmp_path / "longspan" / "results"
    harness.run(toy.slug)
    own = harness.stored(toy.slug)
    assert own is not None
    assert own[1].parent == tmp_path / "cache" / "results"


def test_a_slug_names_its_module() -> None:
    assert harness.module_of("kimi-k1.5") == "kimi_k1_5"
    assert "harness" not in harness.modules()
