#!/usr/bin/env python
"""The command ``fastssl entry-points``, from a checkout."""

from fastssl.commands import run

if __name__ == "__main__":
    run("entry-points")
