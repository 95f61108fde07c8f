"""The report: everything in one page, nothing loaded, everything escaped, the worst first."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from penstock_host.checklist.catalogue import ITEMS
from penstock_host.host import Host
from penstock_host.report.cli import gather
from penstock_host.report.page import JournalRow, Report, compared, rendered
from support.host_trees import bare_metal, cloud_guest, container, laptop
from support.measured import jitter

VOID = {"meta", "br", "rect", "line", "polyline", "polygon", "circle"}
NASTY = "</pre></td><script>alert(1)</script><img src=x onerror=y> & \"'"


class Page(HTMLParser):
    """Reads a page, and remembers what does not close, what would load, and its words."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.faults: list[str] = []
        self.tags: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes) -> None:
        self.tags.append(tag)
        self.faults += [
            f"{tag} {name}" for name, _ in attributes if name in {"src", "href", "srcset"} or name[:2] == "on"
        ]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes) -> None:
        self.handle_starttag(tag, attributes)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes something else")

    def handle_data(self, data) -> None:
        if self.open and self.open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def item(item_id: str, status: str, severity: str = "must", **words: str) -> dict[str, object]:
    usual = {"title": f"title of {item_id}", "wanted": "this", "found": "that", "mend": "do so"}
    return {"id": item_id, "status": status, "severity": severity, **usual, **words}


MEASURED = (jitter("before", slices=20), jitter("after", scale=0.3, seed=2, slices=20))


def full(word: str = "x") -> Report:
    return Report(
        node=f"colo {word}",
        made="2026-05-04 10:00 UTC",
        facts={"kernel": word, "cmdline": word, "nodes": {"0": "0-3"}, "load": ["0.1", "0.2"], "nic": None},
        picture=f"  node 0 [. . H H] {word}",
        items=[
            item("C5", "OK", found=word),
            item("C9", "DRIFT", wanted=word, mend=word),
            item("C12", "CONFLICT", "should", found=word),
            item("N1", "UNSUPPORTED", "info"),
        ],
        plan=f"#!/bin/sh\necho {word} > /proc/x",
        journal=[JournalRow("C9", f"/sys/{word}", word, "ff")],
        measurements=[MEASURED[0], replace(MEASURED[1], label=word, notes=(word,), host={"kernel": word})],
    )


def test_page_is_whole_and_loads_nothing() -> None:
    text = rendered(full())
    page = Page(text)
    assert page.open == []
    assert page.faults == []
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert re.findall(r"url\(|@import", text) == []
    assert set(re.findall(r"https?://[^\"]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text


def test_page_says_all_of_it_with_what_needs_a_hand_first() -> None:
    text = Page(rendered(full())).text
    for words in (
        "Did it help?",
        "it helped",
        "How the host stands",
        "What apply would do",
        "echo x > /proc/x",
        "Journal",
    ):
        assert words in text, words
    assert (
        text.index("title of C12") < text.index("title of C9") < text.index("title of C5") < text.index("title of N1")
    )
    assert "1 of 2" in text, "one must item of two drifts"
    assert "penstock-tune revert" in text
    assert "node 0 [. . H H]" in text


def test_worse_points_to_revert() -> None:
    report = replace(full(), measurements=[jitter("before"), jitter("after", scale=6.0, seed=2)])
    text = Page(rendered(report)).text
    assert "it made things WORSE" in text
    assert "puts every value back; measure again after it" in text


def test_words_of_the_host_stay_words() -> None:
    text = rendered(full(NASTY))
    page = Page(text)
    assert page.open == []
    assert page.faults == []
    assert "<script" not in text
    assert page.text.count("<script>alert(1)</script>") >= 8, "it is shown where it stood"


@settings(max_examples=25)
@given(st.text(st.characters(codec=None, exclude_categories=()), max_size=40))
def test_any_words_leave_the_page_whole(word: str) -> None:
    text = rendered(replace(full(word), measurements=[jitter(word, cpus=(2,), slices=8)]))
    text.encode()
    page = Page(text)
    assert page.open == []
    assert page.faults == []


def test_empty_host_is_a_page_too() -> None:
    page = Page(rendered(Report(node="bare", made="now")))
    assert page.open == []
    assert "Nothing is applied since this boot" in page.text
    assert "measure jitter --hot --label before" in page.text


def test_first_of_each_kind_is_what_later_ones_are_compared_with() -> None:
    first, second, third = jitter("a"), jitter("b", seed=2), jitter("c", seed=3)
    lonely = replace(jitter("d"), kind="oslat")
    apart = jitter("e", cpus=(9,))
    comparisons, alone = compared([first, second, lonely, third, apart])
    assert [(one.before.label, one.after.label) for one in comparisons] == [("a", "b"), ("a", "c")]
    assert [one.label for one in alone] == ["d", "e"]


@pytest.mark.parametrize("number", [2, 40])
def test_long_lists_of_mends_are_cut(number: int) -> None:
    mend = "; ".join(f"echo 0 > /proc/irq/{irq}/smp_affinity_list" for irq in range(number))
    text = Page(rendered(replace(full(), items=[item("I2", "DRIFT", mend=mend)]))).text
    assert ("and 37 more like these" in text) is (number == 40)
    assert "/proc/irq/1/" in text


def test_mend_shows_its_command_as_code() -> None:
    text = rendered(replace(full(), measurements=[jitter("before"), jitter("after", scale=6.0, seed=2)]))
    assert "<code>penstock-tune revert</code> puts every value back" in text


@pytest.mark.parametrize("build", [bare_metal, cloud_guest, laptop, container])
def test_every_kind_of_host_has_a_whole_page_with_every_item(tmp_path: Path, build: Callable[[Path], object]) -> None:
    build(tmp_path)
    report = gather(Host(tmp_path), [])
    page = Page(rendered(report))
    assert page.open == []
    assert page.faults == []
    assert len(report.items) == len(ITEMS)
    assert [one.item_id for one in ITEMS if one.title not in page.text] == []
    assert "penstock-tune plan: paste as root" in page.text
