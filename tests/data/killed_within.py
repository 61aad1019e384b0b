"""`twin-vae` on a stream in small chunks, where the process that writes is killed within the second epoch."""

import os
import signal

from vae_common.cli import __main__
from vae_common.data import streams
from vae_common.runs import checkpoints


def main():
    write = checkpoints.write

    def killed(path, checkpoint):
        write(path, checkpoint)
        if checkpoint.epoch == 1 and checkpoint.terms is not None and len(checkpoint.terms.total) > 20:
            os.kill(os.getpid(), signal.SIGKILL)

    checkpoints.write, streams.CHUNK = killed, 5 * 32 * 784
    __main__.main()


if __name__ == "__main__":
    main()
