"""Random words: NumPy's own Philox word for word, whatever the pieces they are drawn in."""

from __future__ import annotations

import numpy as np
import pytest

from penstock_kernels.philox import Stream


@pytest.mark.parametrize(("seed", "stream"), [(0, 0), (1, 2), (2**63 + 5, 2**64 - 1)])
def test_words_are_those_of_numpy(seed, stream):
    expected = np.random.Philox(key=np.array([seed, stream], dtype=np.uint64)).random_raw(1_001)
    assert np.array_equal(Stream(seed, stream).words(1_001), expected)


def test_words_do_not_depend_on_the_pieces_they_are_drawn_in():
    whole = Stream(7, 1).words(100)
    pieces = Stream(7, 1)
    assert np.array_equal(np.concatenate([pieces.words(count) for count in (1, 2, 0, 50, 47)]), whole)


def test_uniform_is_the_top_53_bits_of_each_word():
    expected = [-2.0 + 5.0 * ((int(word) >> 11) / 2**53) for word in Stream(3, 9).words(50)]
    assert Stream(3, 9).uniform(50, -2.0, 3.0).tolist() == expected


def test_distinct_draws_each_integer_at_most_once_and_all_of_them_at_the_limit():
    assert sorted(Stream(1, 1).distinct(9, 1, 10).tolist()) == list(range(1, 10))
    draws = {tuple(Stream(seed, 1).distinct(2, 1, 4).tolist()) for seed in range(200)}
    assert draws == {(a, b) for a in (1, 2, 3) for b in (1, 2, 3) if a != b}


def test_distinct_refuses_more_than_there_are():
    with pytest.raises(ValueError, match="count=4"):
        Stream(1, 1).distinct(4, 0, 3)
