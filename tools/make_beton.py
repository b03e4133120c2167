#!/usr/bin/env python
"""The command ``fastssl make-beton``, from a checkout."""

from fastssl.commands import run

if __name__ == "__main__":
    run("make-beton")
