"""When a member is put aside and when it comes back, on plain lists and a clock of numbers."""

from __future__ import annotations

import pytest

from proxymw.errors import ConfigError
from proxymw.rules import health as rules
from proxymw.rules.health import SECOND, Health, Probe
from proxymw.rules.members import Flag

COLUMNS = ("found", "error_at", "retries", "fails", "window", "ejections", "until", "trial", "streak", "ramp")


class Records:
    def __init__(self, members: int = 1) -> None:
        for name in COLUMNS:
            setattr(self, name, [0] * members)


def fail(records, now: float, health: Health, *, weight: int = 2, aside: int = 0, members: int = 4) -> int:
    return rules.record_failure(records, 0, int(now * SECOND), health, weight, aside, members)


def back(records, now: float) -> bool:
    return rules.revive(records, 0, int(now * SECOND), 0, 60 * SECOND)


def test_an_error_lasts_for_retry() -> None:
    records = Records()
    assert rules.mark_error(records, 0, 100 * SECOND, 0)
    assert not rules.mark_error(records, 0, 100 * SECOND, 0)
    assert not back(records, 159.9)
    assert back(records, 160)
    assert records.found == [0]
    assert records.retries == [1]


def test_a_member_that_ignores_errors_is_never_in_error() -> None:
    records = Records()
    assert not rules.mark_error(records, 0, 0, int(Flag.IGNORE_ERRORS))
    assert records.found == [0]


def test_a_stopped_member_is_not_retried() -> None:
    records = Records()
    rules.mark_error(records, 0, 0, 0)
    assert not rules.revive(records, 0, 1000 * SECOND, int(Flag.STOPPED), 0)


def test_three_failures_in_the_window_eject() -> None:
    records, health = Records(), Health()
    assert [fail(records, now, health) for now in (0.1, 1, 2)] == [0, 0, 10]
    assert records.found == [Flag.EJECTED]


def test_old_failures_are_forgotten() -> None:
    records, health = Records(), Health()
    assert [fail(records, now, health) for now in (1, 2, 12, 13)] == [0, 0, 0, 0]


def test_a_timeout_counts_half() -> None:
    records, health = Records(), Health()
    assert [fail(records, 1 + n / 10, health, weight=1) for n in range(6)] == [0, 0, 0, 0, 0, 10]


def test_no_more_than_the_share_is_ejected() -> None:
    records, health = Records(), Health(share=0.5)
    assert [fail(records, 1, health, aside=2) for _ in range(5)] == [0] * 5
    assert fail(records, 1, health, aside=1) == 10


def test_each_ejection_is_longer_and_success_forgives() -> None:
    records, health = Records(), Health(failures=1, eject=10, eject_max=35)
    now, times = 0.0, []
    for _ in range(4):
        now += 1
        times.append(fail(records, now, health))
        now += times[-1]
        assert back(records, now)
        assert records.found == [Flag.TRIAL]
    assert times == [10, 20, 35, 35]
    assert rules.record_success(records, 0, int(now * SECOND), health)
    assert records.found == [0]
    assert fail(records, now + 1, health) == 10


def test_a_failed_trial_ejects_at_once() -> None:
    records, health = Records(), Health(failures=3)
    for _ in range(3):
        fail(records, 1, health)
    assert back(records, 12)
    assert fail(records, 12, health, weight=1) == 20


def test_one_trial_at_a_time_and_a_lost_one_is_forgotten() -> None:
    records = Records()
    records.trial[0] = 5 * SECOND
    assert rules.on_trial(records, 0, 6 * SECOND, 10 * SECOND)
    assert not rules.on_trial(records, 0, 16 * SECOND, 10 * SECOND)


def test_slow_start_grows_from_a_tenth() -> None:
    factors = [rules.ramped(500, 100 * SECOND, int((100 + t) * SECOND), 10) for t in (0, 1, 5, 9.99, 10, 99)]
    assert factors == [50, 50, 250, 499, 500, 500]
    assert rules.ramped(500, 0, SECOND, 10) == 500
    assert rules.ramped(500, SECOND, SECOND, 0) == 500


def probe(records, *passed: bool, **options) -> list[str]:
    return [rules.probe_result(records, 0, ok, Probe(**options), SECOND) for ok in passed]


def test_probes_take_down_after_fall_and_up_after_rise() -> None:
    records = Records()
    assert probe(records, False, False, True, False, False, False) == ["", "", "", "", "", "down"]
    assert records.found == [Flag.CHECK_FAILED]
    assert probe(records, True, False, True, True) == ["", "", "", "up"]
    assert records.found == [0]


def test_passes_end_an_error_that_traffic_saw() -> None:
    records = Records()
    rules.mark_error(records, 0, SECOND, 0)
    assert probe(records, True, True) == ["", "up"]
    assert records.found == [0]


def test_all_in_error_are_forced_back() -> None:
    records = Records(3)
    records.found = [int(Flag.ERROR), int(Flag.EJECTED), int(Flag.ERROR | Flag.CHECK_FAILED)]
    rules.force_recovery(records, range(3))
    assert records.found == [0, 0, Flag.CHECK_FAILED]


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (Health, {"failures": 0}),
        (Health, {"window": 0}),
        (Health, {"share": 1.5}),
        (Health, {"slow_start": -1}),
        (Probe, {"path": "x"}),
        (Probe, {"path": "/a b"}),
        (Probe, {"path": "/a\r\nX: y"}),
        (Probe, {"interval": 0}),
        (Probe, {"rise": 0}),
        (Probe, {"initial": "unknown"}),
        (Probe, {"method": "POST"}),
        (Probe, {"jitter": 1}),
    ],
)
def test_wrong_settings_are_refused(kind, options) -> None:
    with pytest.raises(ConfigError):
        kind(**options)
