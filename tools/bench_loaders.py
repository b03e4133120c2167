#!/usr/bin/env python
"""The command ``fastssl bench-loaders``, from a checkout."""

from fastssl.commands import run

if __name__ == "__main__":
    run("bench-loaders")
