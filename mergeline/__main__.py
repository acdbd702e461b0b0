"""Runs the command line, as `mergeline` and as `python -m mergeline`."""

import io
import signal
import sys

from gitops import interrupt


def main() -> None:
    """Run the command line; errors that a user can mend are one message and exit status 1."""
    interrupt.end_at_once()  # the verbs import for a second
    from gitops.errors import GateError, MergelineError, told
    from mergeline.output import err
    from mergeline.verbs import app

    interrupt.raise_again()
    # A terminal of another alphabet, or a file's name that is no text: shown as its code, and no traceback.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a polite end unwinds like Ctrl-C
    try:
        app()
    except GateError as error:
        err.print(f"refused: {error}")
        sys.exit(1)
    except MergelineError as error:
        err.print(f"error: {error}")
        sys.exit(1)
    except OSError as error:
        if (text := told(error)) is None:
            raise
        err.print(f"error: {text}")
        sys.exit(1)
    except KeyboardInterrupt:
        err.print("interrupted")
        sys.exit(interrupt.STATUS)


if __name__ == "__main__":
    main()
