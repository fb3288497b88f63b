"""Does the benchmark say of its samples what is true of them?"""

from __future__ import annotations

import random

import pytest

from bench.stats import ENOUGH_FOR_P99, median, p99, percentile, ratio


def test_the_median_of_an_even_number_lies_halfway_between_the_middle_two() -> None:
    assert median([4.0, 1.0, 3.0, 2.0]) == 2.5
    assert median([3.0, 1.0, 2.0]) == 2.0


@pytest.mark.parametrize(
    ("share", "value"), [(0.01, 1), (0.5, 50), (0.99, 99), (1.0, 100), (0.0, 1)]
)
def test_a_percentile_is_the_smallest_value_not_below_that_share(share: float, value: int) -> None:
    assert percentile([float(number) for number in range(100, 0, -1)], share) == value


def test_a_p99_is_given_only_where_there_are_samples_enough() -> None:
    values = [float(number) for number in range(ENOUGH_FOR_P99)]
    assert p99(values) == 98.0
    assert p99(values[1:]) is None


def test_a_ratio_comes_with_an_interval_that_holds_it_and_is_the_same_each_time() -> None:
    chance = random.Random(7)
    base = [chance.gauss(100, 10) for _ in range(200)]
    values = [1.2 * value for value in base]
    found = ratio(values, base)
    assert found.value == pytest.approx(1.2)
    assert 1.15 < found.low < 1.2 < found.high < 1.25
    assert ratio(values, base) == found


def test_no_samples_are_an_error_and_not_a_zero() -> None:
    with pytest.raises(ValueError, match="no values"):
        median([])
    with pytest.raises(ValueError, match="no values"):
        percentile([], 0.5)
