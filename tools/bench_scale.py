#!/usr/bin/env python
"""The command ``fastssl bench-scale``, from a checkout."""

from fastssl.commands import run

if __name__ == "__main__":
    run("bench-scale")
