"""How the workers of a DataLoader end: with the training, not before it."""

import os
import signal
import sys
import threading


def outlive_sigterm(worker: int) -> None:
    """Ignore SIGTERM unless the training itself sends it; a `worker_init_fn`.

    SLURM sends it to all processes of a job at once. Without its workers a training could not end after its step.
    """
    if sys.platform == "linux":  # others have no sigwaitinfo
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)
