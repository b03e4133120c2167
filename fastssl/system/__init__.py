"""What this process has of the machine: files, CPUs, cgroups, signals, and its relatives."""
