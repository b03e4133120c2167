#!/usr/bin/env python
"""The command ``fastssl render-synthetic``, from a checkout."""

from fastssl.commands import run

if __name__ == "__main__":
    run("render-synthetic")
