"""What the monitor saw of the line in a day, on a page: a job for each night.

python -m ray_jobs.drift --project project.yaml --state .mergeline --hours 24
"""

from datetime import timedelta
from pathlib import Path

from gitops.contracts.model import ReferenceSample
from gitops.errors import BundleError, ContractError
from gitops.state import write_atomically
from gitops.status import now
from ray_jobs import drift_page
from ray_jobs.drift_page import Report
from ray_jobs.drift_summary import reference_of, sum_up
from ray_jobs.stage import Stage, arguments, as_hours, open_stage, recorded, run_main


@recorded("drift")
def run(stage: Stage, windows: Path, hours: float) -> Path | None:
    """Sum up the project's windows that were judged lately, in words and on a page.

    Args:
        stage: project and state.
        windows: `args.windows` of an environment: one folder in it an application.
        hours: that have passed since the first of them was judged, at most.

    Returns:
        The page; None: no window was judged.

    Raises:
        DataError: there is no such folder, or none of the windows in it can be read.
    """
    until = now()
    found = sum_up(stage.project.name, windows, until - timedelta(hours=hours))
    for text in found.unreadable:
        print(f"mind: {text}")
    if not found.watched:
        print(f"no window of {stage.project.name} was judged in the last {hours:g} h in {windows}")
        return None
    references: dict[str, ReferenceSample | str] = {}
    for watched in found.watched:
        try:
            references[watched.model.sha256] = reference_of(watched.model)
        except (BundleError, ContractError) as error:  # of a version that is long gone: the windows still say it all
            references[watched.model.sha256] = str(error)
            print(f"mind: the page has no reference of {watched.title}: {error}")
        print(watched.text)
    page = stage.state.drift / stage.project.name / f"{until:%Y%m%dT%H%M%SZ}.html"
    page.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(page, drift_page.render(Report(stage.project, windows, found, references, until, hours)))
    print(f"wrote {page}")
    return page


def main() -> None:
    """Report as a program."""
    parser = arguments("Sum up the windows of the served line that were judged lately: what drifted, on a page.")
    place = "`args.windows` of the environment (the state folder's, of the project's first environment)"
    parser.add_argument("--windows", type=Path, metavar="FOLDER", help=place)
    parser.add_argument("--hours", type=as_hours, default=24.0, help="that a window may be old (%(default)g)")
    options = parser.parse_args()
    stage = open_stage(options)
    usual = stage.state.windows / stage.project.environments[0]
    if options.windows is None and not usual.is_dir():  # no mistake of whoever asks each night, as one named would be
        print(f"no window of photographs lies in {usual} yet: it takes traffic, and args.windows")
        return
    run(stage, options.windows or usual, options.hours)


if __name__ == "__main__":
    run_main(main)
