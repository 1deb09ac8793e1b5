"""Processes forked off a rank: deaf to what the rank is asked by signals, and gone with it, however it ends."""

import ctypes
import os
import signal

import torch

PR_SET_PDEATHSIG = 1  # from linux/prctl.h


def settle_child(parent: int) -> None:
    """What such a process does first: one thread, no gradients, no signals of the rank's, and death with it.

    Where the system cannot promise the last, the child has to notice by itself.
    """
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)  # each operation is then a little quicker
    # Ctrl-C and the end of a job's time reach the whole group, but the rank may want more of its children before it
    # ends: what it has a handler for, they do not hear.
    handled = {number for number in signal.valid_signals() if callable(signal.getsignal(number))}
    for number in handled | {signal.SIGINT, signal.SIGTERM}:
        signal.signal(number, signal.SIG_IGN)
    if hasattr(ctypes.CDLL(None), "prctl"):
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
