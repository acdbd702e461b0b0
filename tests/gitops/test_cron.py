"""Schedules: what KubeRay reads passes, and what it does not is refused with the field that is wrong."""

import pytest

from gitops.cron import obstacle


@pytest.mark.parametrize(
    "schedule",
    [
        "0 3 * * *",
        "*/5 * * * *",
        "0,30 6-18/2 1 JAN-mar mon-FRI",
        "00 03 01 01 0",
        "5/10 ? * * ?",
        "  0   3 * * sun ",
        "@daily",
        "@every 1h30m",
    ],
)
def test_what_kuberay_reads_passes(schedule: str) -> None:
    assert obstacle(schedule) is None


@pytest.mark.parametrize(
    ("schedule", "words"),
    [
        ("", "0 fields"),
        ("0 3 * *", "4 fields"),
        ("0 0 3 * * *", "6 fields"),
        ("60 3 * * *", "'60' as its minute: it is 0 to 59,"),
        ("0 24 * * *", "'24' as its hour"),
        ("0 3 0 * *", "'0' as its day of the month: it is 1 to 31"),
        ("0 3 * foo *", "'foo' as its month: it is 1 to 12 or jan to dec"),
        ("0 3 * * 7", "'7' as its day of the week: it is 0 to 6 or sun to sat"),
        ("0 3 L * *", "'L' as its day of the month"),
        ("0 3 * * fri#2", "'fri#2' as its day"),
        ("*/0 3 * * *", "'*/0' as its minute"),
        ("30-10 3 * * *", "'30-10' as its minute"),
        ("0,,5 3 * * *", "'' as its minute"),
        ("0 3 * * 1-2-3", "'1-2-3' as its day"),
        ("@nightly", "1 fields"),
        ("TZ=UTC 0 3 * * *", "6 fields"),
    ],
)
def test_what_it_does_not_is_refused_with_the_field_that_is_wrong(schedule: str, words: str) -> None:
    assert words in (obstacle(schedule) or "")


@pytest.mark.parametrize("schedule", ["@every 0s", "@every 59s", "@every 0h0m30.5s"])
def test_what_comes_more_often_than_each_minute_is_refused(schedule: str) -> None:
    assert "more often than each minute" in (obstacle(schedule) or "")
    assert obstacle("@every 60s") is obstacle("@every 0.5m30s") is None
