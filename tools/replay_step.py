#!/usr/bin/env python
"""The command ``fastssl replay-step``, from a checkout."""

from fastssl.commands import run

if __name__ == "__main__":
    run("replay-step")
