"""Ctrl-C while a program still imports: nothing is to be unwound yet, and a traceback of imports tells nothing."""

import os
import signal
from types import FrameType

STATUS = 130
"""Exit status of a program that was interrupted, as shells have it."""


def end_at_once() -> None:
    """Until `raise_again` is called, let Ctrl-C end this process with a word and `STATUS`."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:  # else it is ignored, or somebody else's matter
        signal.signal(signal.SIGINT, _end)


def raise_again() -> None:
    """Let Ctrl-C raise KeyboardInterrupt, as Python has it: from now on there may be something to unwind."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(_: int, __: FrameType | None) -> None:
    os.write(2, b"interrupted\n")
    os._exit(STATUS)
