"""What fails while a run is at work: kills, damage, full disks, signals; each many times, counted.

* A module here that has ``list_cases() -> list[Case]`` is a part of the suite of faults:
  ``saving.py`` for checkpoints, ``training.py`` for whole runs, ``presses.py`` for Ctrl-C in
  commands with workers, ``soak.py`` for a run of two ranks that is killed for as long as wanted.
* The long form, by hand::

      make faults                                         all of it, the soak for 30 minutes
      make faults FAULTS_ARGS="saving"                    a module of it
      make faults FAULTS_ARGS="--only kill --times 10"    cases by a part of their name, ten tries
      make faults FAULTS_ARGS="soak --minutes 5"

  It prints a line a case, how often it was tried and how often something was lost, and ends with 1
  if anything was.
* The short form, in the suite, is ``test_cases.py``: a few tries of each. ``test_kill.py`` and
  ``test_agents.py`` compare whole runs, tensor by tensor and sample by sample.
"""
