"""Start one program as another user, tied to the life of the process that asked for it.

This file is also run as a script (`python -I -S launch.py …`), so it imports nothing but the
standard library. A program of its own takes these steps between fork and exec, because code
that runs there inside a process with threads can deadlock. What the script does, in order:

1. Drop supplementary groups, group and user, if asked to.
2. Ask the kernel for a signal when the parent dies (Linux only). It comes after 1, because a
   change of user clears the request; it survives exec.
3. Leave if the parent died before 2, since nobody would ever signal this program.
4. Replace itself with the program, keeping its process id.

The kernel means the parent's *thread*: it signals when the thread that forked ends.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

KEEP_ID = -1
PR_SET_PDEATHSIG = 1


def launch_command(
    program: list[str], *, death_signal: int, uid: int = KEEP_ID, gid: int = KEEP_ID
) -> list[str]:
    """Return the command that runs `program` from this process and by the steps above.

    Args:
        program: absolute path and arguments.
        death_signal: the signal that the program gets when the calling thread ends.
        uid: user to become, or `KEEP_ID`.
        gid: group to become, or `KEEP_ID`.
    """
    script = str(Path(__file__).resolve())
    numbers = map(str, (os.getpid(), death_signal, uid, gid))
    return [sys.executable, "-I", "-S", script, *numbers, *program]


def main(arguments: list[str]) -> None:
    """Take the steps of the module's docstring; never returns."""
    parent, death_signal, uid, gid = map(int, arguments[:4])
    program = arguments[4:]
    if uid != KEEP_ID:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the process that started this program has ended")
    os.execv(program[0], program)  # noqa: S606 (there must be no shell in between)


if __name__ == "__main__":
    main(sys.argv[1:])
