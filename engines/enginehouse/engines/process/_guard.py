"""Ties a child to its parent, then becomes the child: ``python -I -S _guard.py PARENT_PID COMMAND [ARGUMENT ...]``.

Linux only knows the parent-death signal from inside the child, and running code between fork and exec is unsafe in a
process with threads, as every gRPC process is. So a fresh interpreter sets it and execs.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1  # linux/prctl.h


def main() -> None:
    """Sets SIGKILL as the parent-death signal and execs the command."""
    parent_pid, command = int(sys.argv[1]), sys.argv[2:]
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent_pid:  # it died before the signal was armed
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 (replaced by the command on purpose)


if __name__ == "__main__":
    main()
