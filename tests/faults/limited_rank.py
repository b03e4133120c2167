"""``fastssl train``, where no file of rank 1 may have more than 1,000 bytes, as on a full disk."""

from __future__ import annotations

import os
import resource

from fastssl.commands import run

if __name__ == "__main__":
    if os.environ["RANK"] == "1":
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # what it says may go into a file too
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
    run("train")
