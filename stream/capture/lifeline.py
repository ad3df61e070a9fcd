"""A capture process's tie to its parent: it must never outlive it, however the parent ends.

The parent holds the write end of our standard input. It writes `QUIT` to ask for an orderly exit; end of file without
it means that the parent is gone, SIGKILL included, on every platform. On Linux the kernel also signals the parent's
death, for the case that a driver hangs with the interpreter's lock held, so that no Python thread can react.
"""

import ctypes
import os
import signal
import sys
import threading
from collections.abc import Callable

LIFELINE_VARIABLE = "EMOSTREAM_LIFELINE"
QUIT = b"q"
EXIT_WITHIN_S = 0.5  # for an orderly end after the parent died
_PR_SET_PDEATHSIG = 1


def attach(on_quit: Callable[[], None], on_orphaned: Callable[[], None]) -> None:
    """Watch the parent from a daemon thread; nothing is done if no parent asked for it.

    Args:
        on_quit: called when the parent asks us to exit; shall make the main thread return.
        on_orphaned: called when the parent is gone, before the process is ended `EXIT_WITHIN_S` later at most.
    """
    if os.environ.pop(LIFELINE_VARIABLE, None) != "1":
        return
    if sys.platform == "linux":
        _die_with_parent()

    def watch() -> None:
        if os.read(0, 1) == QUIT:
            on_quit()
            return
        timer = threading.Timer(EXIT_WITHIN_S, os._exit, (1,))
        timer.daemon = True
        timer.start()
        on_orphaned()

    threading.Thread(target=watch, name="lifeline", daemon=True).start()


def _die_with_parent() -> None:
    """Have the kernel end us about a second after the parent's death, without help from the interpreter.

    SIGHUP is sent at once, and its handler is libc's own alarm(): called with the signal's number, 1, it schedules a
    SIGALRM for one second later, whose default action ends the process. That second is for an orderly end.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGHUP, ctypes.cast(libc.alarm, ctypes.c_void_p))
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGHUP), 0, 0, 0)
