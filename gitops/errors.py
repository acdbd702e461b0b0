"""The errors that Mergeline raises on purpose; the command line prints their text and exits with 1.

MergelineError              anything a user can mend: says which object, what was found, what to do
├── ContractError           a file or a value that breaks a contract (project file, manifest, report)
│   └── NotHereError        one that may be right where it is used, and is made of what is not to be had here
├── StageError              a stage of the line that cannot go on
│   ├── DataError           the data source or its images
│   └── TrainingError       training or export
├── BundleError             a model bundle that is missing, incomplete or not what its digest says
├── GitError                a Git command that failed
├── GateError               a change that the gates refuse
└── ReconcileError          a commit that cannot be made true
    ├── StalledError        a person must act: trying again changes nothing
    └── WaitingError        trying again later may help
"""

import difflib
import errno
from collections.abc import Iterable

_FULL, _FORBIDDEN = "make room", "give this user the right to it, or name another place"
_IN_THE_WAY = "something else lies there: name another place, or move it away"
_REMEDIES = {
    errno.ENOSPC: _FULL,
    errno.EDQUOT: _FULL,
    errno.EACCES: _FORBIDDEN,
    errno.EPERM: _FORBIDDEN,
    errno.EROFS: "name a place that can be written to",
    errno.ENOTDIR: _IN_THE_WAY,
    errno.EISDIR: _IN_THE_WAY,
    errno.EEXIST: _IN_THE_WAY,
    errno.ENAMETOOLONG: "choose a shorter name",
    errno.ELOOP: "mend the symbolic link",
    errno.EMFILE: "raise the limit of open files (`ulimit -n`)",
    errno.EIO: "look after the disk",
}


class MergelineError(Exception):
    """Anything a user can mend."""


class ContractError(MergelineError):
    """A file or a value that breaks a contract."""


class NotHereError(ContractError):
    """A file may be right where it is used, and is made of what is not to be had here."""


class StageError(MergelineError):
    """A stage of the line that cannot go on."""


class DataError(StageError):
    """The data source or its images cannot be used."""


class TrainingError(StageError):
    """Training or export failed."""


class BundleError(MergelineError):
    """A model bundle is missing, incomplete or not what its digest says."""


class GitError(MergelineError):
    """A Git command failed."""


class GateError(MergelineError):
    """The gates refuse a change."""


class ReconcileError(MergelineError):
    """A commit cannot be made true."""


class StalledError(ReconcileError):
    """A person must act: trying again changes nothing."""


class WaitingError(ReconcileError):
    """Trying again later may help."""


def told(error: OSError) -> str | None:
    """An error of the operating system that a user can mend, in a line; None: it tells of a mistake of ours.

    It may come up wherever something is read or written, so that whoever runs a program catches it once, at the top.
    """
    remedy = _REMEDIES.get(error.errno or 0)
    if remedy is None:
        return None
    place = error.filename if error.filename2 is None else error.filename2  # of a renaming: where it goes
    return f"{'' if place is None else f'{place}: '}{error.strerror}; {remedy}"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """The end of a message on an unknown word: the known one that is nearest to it, or all of them."""
    words = list(known)
    near = difflib.get_close_matches(word, words, n=1, cutoff=0.4)
    return f"did you mean {near[0]!r}?" if near else f"known: {', '.join(words)}"
