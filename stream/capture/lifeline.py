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
    """Have the kernel end us a second after the parent's death, without help from the interpreter.

    The kernel sends SIGHUP when the parent dies. The handler of SIGHUP is libc's own `alarm(seconds)`: a handler is
    called with the signal's number, SIGHUP is 1, so it asks for SIGALRM in one second, whose default is to end us.
    No Python runs in this. The second is for the orderly end in `attach`, which then comes first.

    What looks simpler does less. SIGKILL as the parent-death signal leaves no time to release the device and to
    remove the endpoint's directory. Any handler or thread of Python's waits for the lock that the driver holds. A
    watchdog that has to be fed (`faulthandler.dump_traceback_later`) needs no lock, but also ends a process that was
    only suspended, or whose driver is slow, while its parent lives.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal.restype = ctypes.c_void_p
    libc.signal(signal.SIGHUP, ctypes.cast(libc.alarm, ctypes.c_void_p))
    libc.prctl(_PR_SET_PDEATHSIG, int(signal.SIGHUP), 0, 0, 0)
