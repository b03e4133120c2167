#!/usr/bin/env python
"""The command ``fastssl bench-svm``, from a checkout."""

from fastssl.commands import run

if __name__ == "__main__":
    run("bench-svm")
