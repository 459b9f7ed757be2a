"""The rules of timestamps on MLX, on a vocabulary of twenty."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

mx = pytest.importorskip("mlx.core")

from app.backends.mlx_decoding import TokenFilter  # noqa: E402

pytestmark = pytest.mark.mlx

EOT, NO_TIMES, BEGIN, VOCABULARY = 8, 9, 10, 20
TOKENIZER = SimpleNamespace(eot=EOT, no_timestamps=NO_TIMES, timestamp_begin=BEGIN)
TEXT, TIMES = set(range(EOT)), set(range(BEGIN, VOCABULARY))


def allowed(*chosen: int, times_likely: bool = False) -> set[int]:
    """The tokens that may follow those ``chosen``, where text is much likelier than timestamps or the reverse."""
    token_filter = TokenFilter(TOKENIZER, VOCABULARY, (3,))
    state = token_filter.start(1)
    for token in chosen:
        state = token_filter.follow(mx.array([token]), state)
    logits = [[10.0 * ((token >= BEGIN) == times_likely) for token in range(VOCABULARY)]]
    row = token_filter.apply(mx.array(logits), state)[0].tolist()
    return {token for token, logit in enumerate(row) if logit != float("-inf")}


def test_the_first_token_is_a_timestamp():
    assert allowed() == TIMES


def test_text_follows_the_opening_timestamp():
    assert allowed(BEGIN) == TEXT - {3} | {EOT}


def test_behind_text_comes_text_the_end_or_a_later_time():
    assert allowed(BEGIN + 2, 1) == TEXT - {3} | {EOT} | set(range(BEGIN + 3, VOCABULARY))


def test_a_closing_timestamp_is_followed_by_one_no_earlier_or_by_the_end():
    assert allowed(BEGIN, 1, BEGIN + 4) == {EOT} | set(range(BEGIN + 4, VOCABULARY))


def test_a_pair_of_timestamps_is_followed_by_text():
    assert allowed(BEGIN, 1, BEGIN + 4, BEGIN + 4) == TEXT - {3} | {EOT}


def test_time_does_not_run_back_behind_a_pair():
    assert allowed(BEGIN, 1, BEGIN + 4, BEGIN + 5, 2) & TIMES == set(range(BEGIN + 6, VOCABULARY))


def test_where_timestamps_are_likelier_than_any_text_one_is_taken():
    assert allowed(BEGIN, 1, times_likely=True) == set(range(BEGIN + 1, VOCABULARY))


def test_rows_are_followed_apart():
    token_filter = TokenFilter(TOKENIZER, VOCABULARY, ())
    state = token_filter.start(2)
    for tokens in ([BEGIN, BEGIN + 1], [1, 2], [BEGIN + 4, 2]):
        state = token_filter.follow(mx.array(tokens), state)
    first, second = token_filter.apply(mx.zeros((2, VOCABULARY)), state).tolist()
    assert first[1] == float("-inf")
    assert second[BEGIN + 1] == float("-inf")
    assert second[BEGIN + 2] != float("-inf")
