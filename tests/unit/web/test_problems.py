"""Is an error answer short, whatever the caller has sent?"""

from __future__ import annotations

import json

import pytest
from pydantic import ValidationError, create_model

from web.contract.problems import MAX_FIELD_CHARS, MAX_MISTAKES, Problem, invalid_fields

Numbers = create_model("Numbers", numbers=(dict[str, int], ...))


def refusal(numbers: dict[str, object]) -> Problem:
    with pytest.raises(ValidationError) as caught:
        Numbers.model_validate({"numbers": numbers})
    return invalid_fields(caught.value)


def test_the_first_mistakes_are_named_and_the_others_counted() -> None:
    problem = refusal({f"n{n}": "x" for n in range(1000)})

    named = [error["field"] for error in problem.errors]
    assert named == [f"numbers.n{n}" for n in range(MAX_MISTAKES)]
    assert f"these are the first {MAX_MISTAKES} of 1000 mistakes" in problem.detail
    assert len(json.dumps(problem.response().get_json())) < 5000


def test_so_many_are_all_named() -> None:
    problem = refusal({f"n{n}": "x" for n in range(MAX_MISTAKES)})

    assert len(problem.errors) == MAX_MISTAKES
    assert "the first" not in problem.detail


def test_a_callers_own_name_is_cut() -> None:
    problem = refusal({"n" * 500_000: "x"})

    (error,) = problem.errors
    assert error["field"] == f"{'numbers.' + 'n' * MAX_FIELD_CHARS}"[:MAX_FIELD_CHARS] + "..."
    assert len(problem.detail) < 200
