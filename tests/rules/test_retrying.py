"""When a request may be sent again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from proxymw import errors
from proxymw.errors import ConfigError, ConnectionReset, UpstreamError
from proxymw.rules.retrying import RetryBudget, RetryPolicy

ERRORS = [value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, UpstreamError)]


@given(
    kind=st.sampled_from(ERRORS),
    answered=st.booleans(),
    reused=st.booleans(),
    method=st.sampled_from(
        ["GET", "HEAD", "OPTIONS", "PUT", "DELETE", "POST", "PATCH", "get", "TRACE", "PROPFIND", ""]
    ),
    replayable=st.booleans(),
    replays=st.integers(0, 3),
    writes=st.booleans(),
)
def test_nothing_that_may_have_run_is_sent_twice(
    kind: type[UpstreamError], answered: bool, reused: bool, method: str, replayable: bool, replays: int, writes: bool
) -> None:
    error = kind()
    error.answered, error.reused = answered, reused
    policy = RetryPolicy(idempotent_writes=writes)
    may = policy.may_replay(error, method=method, replayable=replayable, replays=replays)
    safe = method in ("GET", "HEAD", "OPTIONS") or (writes and method in ("PUT", "DELETE"))
    assert may == (kind is ConnectionReset and not answered and replayable and replays == 0 and safe)


def test_the_budget_is_a_share_of_the_requests() -> None:
    budget = RetryBudget(0.2, most=2)
    assert [budget.withdraw() for _ in range(3)] == [True, True, False]
    for _ in range(5):
        budget.deposit()
    assert [budget.withdraw() for _ in range(2)] == [True, False]
    for _ in range(1000):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(10)) == 2
    assert not RetryBudget(0.0).withdraw()


@pytest.mark.parametrize(
    "bad", [{"replays": -1}, {"replays": 1.5}, {"failover": -1}, {"budget": 1.5}, {"budget": -0.1}]
)
def test_bad_values(bad: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match=" must be "):
        RetryPolicy(**bad)  # type: ignore[arg-type]
