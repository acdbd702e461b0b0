"""The line's stages, one file each: `python -m ray_jobs.<stage>`."""

import os
import sys

from gitops import interrupt

# In every process before it can import TensorFlow, which greets with a page about the processor; errors are shown.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
# A stage says itself how far it is. Ray Data would say how it does that, and warn that its own bars are off.
os.environ.setdefault("RAY_DATA_LOG_LEVEL", "ERROR")
if sys.argv[:1] == ["-m"]:  # Python is about to run one of the modules, which then import for seconds
    interrupt.end_at_once()
