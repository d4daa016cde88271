"""The catalogue: 55 systems whose status is computed, and a page on which nothing can run that came from elsewhere."""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Sequence
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import longspan
from longspan import catalogue, cli, registry
from longspan.catalogue import Entry, System
from longspan.errors import LongspanError, UsageError
from longspan.reproductions import harness

NASTY = "<script>alert('x')</script> & \"quotes\" \x1b[31mred"


def result(slug: str = "m4le", outcome: str = "holds", **more: Any) -> dict[str, Any]:
    """A stored result, as the harness writes it."""
    return {
        "slug": slug,
        "title": "A title",
        "year": 2023,
        "paper": "arXiv:2310.19240",
        "claim": "Several spans are harder than one.",
        "setting": "Toy samples.",
        "baseline": "The span alone.",
        "criterion": "The interval excludes zero.",
        "quick": False,
        "verdict": {"outcome": outcome, "reason": "0.75 against 0.55"},
        "figures": {"single": {"mean": 0.75, "low": 0.7, "high": 0.8, "seeds": 3}},
        "seeds": [{"seed": 0}],
        "seconds": 12.0,
        "date": "2026-01-02T03:04:05Z",
        "longspan": "0.1.0",
        "source": "abc",
        "environment": {"processor": "a processor", "cores": 2},
        "plot": f"{slug}.svg",
        **more,
    }


@pytest.fixture
def results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that results are looked for in."""
    monkeypatch.setattr(harness, "results_folders", lambda: [tmp_path])
    return tmp_path


def entry(slug: str, of: Sequence[Entry] | None = None) -> Entry:
    return next(entry for entry in of or catalogue.entries() if entry.system.slug == slug)


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["longspan", "systems", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    assert isinstance(stopped.value.code, int)
    return stopped.value.code


def test_there_are_55_systems_each_with_all_that_is_told_of_it() -> None:
    systems = catalogue.systems()
    assert len(systems) == len({system.slug for system in systems}) == 55
    assert len({system.title for system in systems}) == len({system.id for system in systems}) == 55
    for system in systems:
        assert re.fullmatch(r"[a-z0-9]+([-.][a-z0-9]+)*", system.slug), system.slug
        assert re.fullmatch(r"arXiv:\d{4}\.\d{5}", system.id), system.slug
        assert system.year in (int(f"20{system.id[6:8]}"), int(f"20{system.id[6:8]}") - 1), system.slug
        assert system.at and set(system.at) <= set(catalogue.POINTS), system.slug
        for sentence in (system.problem, system.idea):
            assert 40 < len(sentence) < 300 and sentence.endswith("."), system.slug
            assert sentence[0].isupper(), system.slug
        assert all(re.fullmatch(r"[\w.-]+/[\w.-]+", name) for name in system.code), system.slug


def test_every_part_and_reproduction_is_of_a_known_system() -> None:
    slugs = {system.slug for system in catalogue.systems()}
    for kind, slug, of in catalogue.registrations():
        assert set(of) <= slugs, (kind, slug)
    assert set(harness.modules()) <= {harness.module_of(slug) for slug in slugs}
    for reproduction in harness.everything():
        assert reproduction.slug in slugs


def test_what_is_read_from_the_sources_is_what_the_modules_register(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(longspan.__file__).parent
    for file in root.rglob("*.py"):
        if "register(" in file.read_text():
            importlib.import_module(catalogue.module_name(file))
    ours = [part for part in registry.parts() if part.target.__module__.startswith("longspan.")]
    registered = sorted((part.kind, part.slug, part.systems) for part in ours if part.systems)
    monkeypatch.setattr(catalogue, "parts", lambda: [])  # the sources alone
    assert catalogue.registrations() == registered


def test_the_catalogue_imports_nothing_heavy() -> None:
    code = "import sys; from longspan import catalogue; catalogue.entries(); print(*sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(ran.stdout.split())
    assert not loaded & {"torch", "transformers", "inspect_ai", "matplotlib", "jinja2", "lancedb"}


def test_registrations_are_read_without_importing_and_others_by_importing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry, "_parts", {})
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "sparepackage"
    package.mkdir()
    (package / "__init__.py").write_text(
        "from longspan.registry import register\nregister('cache', 'c' * 2, systems=('stem',))(len)\n"
    )
    (package / "literal.py").write_text(
        "raise RuntimeError('imported')\n@register('cache', 'evict', systems=('locret',))\ndef evict(): ...\n"
    )
    (package / "computed.py").write_text(
        "from longspan.registry import register\nSYSTEMS = ('giraffe', 'hope')\n"
        "for name in ('a', 'b'):\n    register('positions', name, systems=SYSTEMS)(len)\n"
    )
    (package / "without.py").write_text("register('workflow', 'other')(len)  # systems= nothing\n")
    assert catalogue.registrations(package) == [
        ("cache", "cc", ("stem",)),
        ("cache", "evict", ("locret",)),
        ("positions", "a", ("giraffe", "hope")),
        ("positions", "b", ("giraffe", "hope")),
    ]


def test_status_is_computed_from_parts_and_results(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "registrations", lambda: [("cache", "locret-heads", ("locret", "m4le"))])
    (results / "m4le.json").write_text(json.dumps(result()))
    (results / "hydra.json").write_text(json.dumps(result("hydra", "does not hold at this scale")))
    (results / "sse.json").write_text(json.dumps(result("sse", "inconclusive")))
    (results / "stem.quick.json").write_text(json.dumps(result("stem", quick=True)))
    entries = catalogue.entries()
    assert entry("locret", entries).status == "part"
    assert entry("locret", entries).parts == (("cache", "locret-heads"),)
    assert entry("m4le", entries).status == "holds"
    assert entry("hydra", entries).status == "does-not-hold"
    assert entry("sse", entries).status == "inconclusive"
    assert entry("stem", entries).status == "planned"  # a quick result is none
    assert {e.system.slug for e in catalogue.search(entries, status="measured")} == {"m4le", "hydra", "sse"}


def test_a_result_of_an_earlier_reproduction_is_marked(results: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = results / "m4le.py"
    module.write_text("now")
    monkeypatch.setattr(harness, "source_of", lambda slug: module if slug == "m4le" else None)
    (results / "m4le.json").write_text(json.dumps(result(source="then")))
    assert entry("m4le").outdated
    (results / "m4le.json").write_text(json.dumps(result(source=harness._hash([module]))))
    assert not entry("m4le").outdated


def test_search_wants_every_word_anywhere() -> None:
    entries = catalogue.entries()
    found = {e.system.slug for e in catalogue.search(entries, "CACHE evict")}
    assert "locret" in found
    assert found < {e.system.slug for e in catalogue.search(entries, "cache")}
    assert catalogue.search(entries, "cache zebra") == []
    assert {e.system.slug for e in catalogue.search(entries, at="kernels")} == {
        "flashattention-4",
        "lean-attention",
        "long-vita",
    }


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(UsageError, match=r"plug-in point named 'cahce'\. Did you mean 'cache'"):
        catalogue.search([], at="cahce")
    with pytest.raises(UsageError, match=r"status named 'hold'\. Did you mean 'holds'"):
        catalogue.search([], status="hold")


def test_the_command_prints_a_table_of_all(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch) == 0
    out = capsys.readouterr().out
    assert all(system.slug in out for system in catalogue.systems())
    assert "55 systems:" in out


def test_the_command_prints_few_in_full(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "m4le.json").write_text(json.dumps(result()))
    assert run(monkeypatch, "m4le") == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "Join the samples of 36 short datasets" in out
    assert "holds: 0.75 against 0.55 (2026-01-02)" in out
    assert run(monkeypatch, "nothing", "of", "this", "kind") == 0
    assert "No system matches." in capsys.readouterr().out


def test_json_has_everything(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (results / "m4le.json").write_text(json.dumps(result()))
    assert run(monkeypatch, "--at", "evaluation", "--json") == 0
    [m4le] = [system for system in json.loads(capsys.readouterr().out) if system["slug"] == "m4le"]
    assert m4le["status"] == "holds"
    assert m4le["result"]["verdict"] == {"outcome": "holds", "reason": "0.75 against 0.55"}
    assert m4le["code"] == ["KwanWaiChung/M4LE"]


class Page(HTMLParser):
    """The tags, links, images and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def nasty(tmp_path: Path) -> list[Entry]:
    """A measured system all of whose texts are hostile."""
    system = System("x", NASTY, NASTY, 2024, "arXiv:2401.00001", ("cache",), NASTY, NASTY, ("a/b",))
    figures = {NASTY: {"mean": 1.0, "low": 1.0, "high": 1.0, "seeds": 1}}
    texts = dict.fromkeys("claim setting baseline criterion".split(), NASTY)
    verdict = {"outcome": "holds", "reason": NASTY}
    data = result("x", **texts, verdict=verdict, figures=figures)
    (tmp_path / "x.json").write_text(json.dumps(data))
    (tmp_path / "x.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    return [Entry(system, (("cache", NASTY),), data, tmp_path / "x.json")]


def test_the_page_has_a_card_for_each_and_asks_nothing_of_the_network(results: Path) -> None:
    text = catalogue.page(catalogue.entries())
    page = Page(text)
    cards = page.all("article")
    assert len(cards) == 55
    assert {card["id"] for card in cards} == {system.slug for system in catalogue.systems()}
    for system in catalogue.systems():
        assert system.title in page.text
        assert system.idea in page.text
    assert not page.all("link") and not page.all("iframe")
    assert all("src" not in script for script in page.all("script"))
    assert all((image["src"] or "").startswith("data:image/svg+xml;base64,") for image in page.all("img"))
    assert "url(" not in text and "@import" not in text
    policy = [meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy"]
    assert policy and "default-src 'none'" in (policy[0] or "")


def test_without_javascript_everything_is_shown_but_the_filters(results: Path) -> None:
    page = Page(catalogue.page(catalogue.entries()))
    assert all("hidden" not in card for card in page.all("article"))
    assert all("hidden" in form for form in page.all("form"))


def test_nothing_of_a_result_can_run_on_the_page(nasty: list[Entry]) -> None:
    text = catalogue.page(nasty)
    page = Page(text)
    assert len(page.all("script")) == 1  # the page's own
    assert "<script>alert" not in text
    assert NASTY in page.text
    [image] = page.all("img")
    assert (image["src"] or "").startswith("data:image/svg+xml;base64,")  # as an image its script is dead


def test_nothing_of_a_result_can_move_the_cursor(nasty: list[Entry], capsys: pytest.CaptureFixture[str]) -> None:
    catalogue.show(nasty)
    assert "\x1b" not in capsys.readouterr().out


def test_measured_systems_come_first_on_the_page(results: Path) -> None:
    (results / "yue.json").write_text(json.dumps(result("yue")))
    page = Page(catalogue.page(catalogue.entries()))
    assert page.all("article")[0]["id"] == "yue"
    assert "Several spans are harder than one." in page.text


def test_the_page_is_written_where_it_is_asked_for(
    results: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(monkeypatch, "--at", "cache", "--html", str(results / "page.html")) == 0
    told = capsys.readouterr()
    assert told.out == ""
    assert "5 systems" in told.err
    assert len(Page((results / "page.html").read_text()).all("article")) == 5
    with pytest.raises(LongspanError, match="Cannot write"):
        catalogue.write_page([], results / "none" / "page.html")


def test_without_the_extra_one_sentence_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert run(monkeypatch, "--html", "page.html") == 1
    assert "pip install 'longspan[eval]'" in capsys.readouterr().err
