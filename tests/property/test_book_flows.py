"""Any flow of orders builds the books that a slow reference builds, and any damage to it is refused or doubted alike."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from support.book_runs import assert_same, begin, doubt, small_books
from support.itch_orders import STOCKS, Flow, mutated
from support.reference_books import ReferenceBooks

IDS = [5, 1, 4_294_967_295]
ROOMY = small_books(STOCKS, IDS, orders_max=1000, levels_max=1000)
TIGHT = small_books(STOCKS, IDS, orders_max=9, levels_max=3)
MIDNIGHT_NS = 1_577_682_000_000_000_000


@settings(max_examples=150)
@given(choices=st.binary(max_size=1200), prices=st.integers(1, 40))
def test_a_flow_without_contradictions_is_sound_and_has_the_tops_of_the_reference(choices, prices):
    begin(ROOMY)
    reference = ReferenceBooks(STOCKS, IDS, orders_max=1000, levels_max=1000)
    flow = Flow(prices=prices)
    outcomes = assert_same(ROOMY, reference, flow.opening() + flow.messages(choices), MIDNIGHT_NS)
    assert set(outcomes) <= {"", *STOCKS}, "nothing is refused"
    assert not ROOMY.unsound.any()


@settings(max_examples=250)
@given(choices=st.binary(max_size=600), damage=st.binary(max_size=60), late=st.booleans())
def test_damage_is_refused_and_doubted_as_the_reference_does(choices, damage, late):
    for books, orders_max, levels_max in ((ROOMY, 1000, 1000), (TIGHT, 9, 3)):
        begin(books)
        reference = ReferenceBooks(STOCKS, IDS, orders_max=orders_max, levels_max=levels_max)
        if late:
            doubt(books)
            reference.mark_unsound()
        flow = Flow(prices=5)
        messages = flow.opening()[late:] + flow.messages(choices)
        assert_same(books, reference, mutated(messages, damage))


@settings(max_examples=100)
@given(messages=st.lists(st.binary(max_size=60), max_size=20))
def test_random_bytes_build_nothing_that_the_reference_does_not(messages):
    begin(TIGHT)
    assert_same(TIGHT, ReferenceBooks(STOCKS, IDS, orders_max=9, levels_max=3), messages)
