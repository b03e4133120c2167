"""Hostile input: files, folders and addresses that somebody made to do harm, one case each.

Whatever a case holds, the command that meets it ends with exit code 0, 1 or 2, says why in one
line, shows no traceback, and takes no more than ten seconds and 2 GB.

* A module here that has ``list_cases() -> list[Case]`` is a part of the corpus: ``sources.py`` for
  what is converted, further ones for datasets, stores, run directories, trunks and state dicts,
  features and results, and reports. It writes its
  files by itself, into the empty folder that a case is given; nothing hostile lies in the
  repository.
* The long form, every case as a command of its own, by hand::

      make hostile                                    all of it
      make hostile HOSTILE_ARGS="sources"             a module of it
      make hostile HOSTILE_ARGS="sources --only fifo" cases by a part of their name

  It prints a line a case and ends with 1 if one of them did not hold. A case that was merely too
  slow is tried three times, for other work slows it too.
* The short form, in the suite, is one ``test_*.py`` a module: the same files, many at once and in
  one process where that can be.
"""
