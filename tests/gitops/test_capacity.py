"""A replica is asked for that some pod can hold."""

import pytest

from tests.gitops.conftest import CONFIG, SERVICE, Changes, Refused, expect_refused, expect_taken

BAD: dict[str, Refused] = {
    "a replica that no pod holds": (
        CONFIG,
        "num_cpus: 2",
        "num_cpus: 4",
        "capacity",
        "screw, Classifier: a replica asks for 4 CPUs, and no pod has as many: head 0 CPUs, group cpu 2 CPUs",
    ),
    "a GPU that no pod has": (CONFIG, "num_cpus: 2", "num_gpus: 1", "capacity", "asks for 1 CPUs and 1 GPUs"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_overlay_is_refused(files: dict[str, str], case: str) -> None:
    expect_refused(files, *BAD[case])


ALLOWED: dict[str, Changes] = {
    "GPUs by `resources`, in small letters": {
        SERVICE: [
            ('        rayStartParams:\n          num-cpus: "2"', '        resources: {cpu: "2", nvidia.com/gpu: "1"}')
        ],
        CONFIG: [("num_cpus: 2", "num_cpus: 2\n          num_gpus: 1")],
    },
    "a part of a GPU": {
        SERVICE: [('limits: {cpu: "3",', 'limits: {cpu: "3", nvidia.com/mig-1g.5gb: 1,')],
        CONFIG: [("num_cpus: 2", "num_gpus: 1")],
    },
}


@pytest.mark.parametrize("case", ALLOWED)
def test_what_is_right_is_not_refused(files: dict[str, str], case: str) -> None:
    expect_taken(files, ALLOWED[case])
