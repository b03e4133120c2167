#!/usr/bin/env python
"""The command ``fastssl make-shards``, from a checkout."""

from fastssl.commands import run

if __name__ == "__main__":
    run("make-shards")
