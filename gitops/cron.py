"""The schedules that KubeRay and Argo CD take.

Both read them with robfig/cron, whose dialect has no seconds, no `7` for Sunday, and neither `L`, `W` nor `#`. One that
KubeRay cannot read is an event on the RayCronJob, and nothing ever runs, so it is refused before.

Source: https://pkg.go.dev/github.com/robfig/cron/v3#hdr-CRON_Expression_Format
"""

import re
from typing import Final

_MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_DAYS: Final = ("sun", "mon", "tue", "wed", "thu", "fri", "sat")
_FIELDS: Final[tuple[tuple[str, int, int, tuple[str, ...]], ...]] = (
    ("minute", 0, 59, ()),
    ("hour", 0, 23, ()),
    ("day of the month", 1, 31, ()),
    ("month", 1, 12, _MONTHS),
    ("day of the week", 0, 6, _DAYS),
)
_DESCRIPTOR = re.compile(
    r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every (\d+(\.\d+)?(h|m|s))+)", re.ASCII
)
_TIME = re.compile(r"(\d+(?:\.\d+)?)([hms])", re.ASCII)
_SECONDS: Final = {"h": 3600, "m": 60, "s": 1}
_PART = re.compile(r"(?:[*?]|(?P<first>\w+)(?:-(?P<last>\w+))?)(?:/(?P<step>\d+))?", re.ASCII)


def obstacle(schedule: str) -> str | None:
    """Why a schedule could not be read: which field, and what it may be; None: it can.

    Args:
        schedule: five fields, as `0 3 * * *`, or `@daily`, `@every 12h` and the like.
    """
    if _DESCRIPTOR.fullmatch(schedule):
        times = _TIME.findall(schedule) if schedule.startswith("@every") else ()
        if times and sum(float(number) * _SECONDS[unit] for number, unit in times) < _SECONDS["m"]:
            return f"the schedule {schedule!r} comes more often than each minute: write @every 1m or longer"
        return None
    fields = schedule.split()
    if len(fields) != len(_FIELDS):
        return (
            f"the schedule {schedule!r} has {len(fields)} fields: write minute, hour, day of the month, month and day "
            "of the week, as '0 3 * * *', or @daily"
        )
    for text, (field, low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in text.split(","):
            if not _is_part(part, low, high, names):
                named = f" or {names[0]} to {names[-1]}" if names else ""
                return (
                    f"the schedule {schedule!r} cannot have {part!r} as its {field}: it is {low} to {high}{named}, as "
                    "a number, a range (a-b), all (*) or steps of these (*/5), with commas between several"
                )
    return None


def _is_part(part: str, low: int, high: int, names: tuple[str, ...]) -> bool:
    found = _PART.fullmatch(part)
    if found is None or (found["step"] is not None and int(found["step"]) == 0):
        return False
    values = {str(value): value for value in range(low, high + 1)}
    values |= {name: low + index for index, name in enumerate(names)}
    texts = [text.lower().lstrip("0") or "0" for text in (found["first"], found["last"]) if text is not None]
    ends = [values[text] for text in texts if text in values]
    return len(ends) == len(texts) and ends == sorted(ends)
