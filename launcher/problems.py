"""Reasons why the program cannot start: one sentence and one exit code each.

Problem                exit 1
├── BadOption          exit 2    an option or environment variable has a wrong value
├── (Python too old    exit 3    said by launch.py itself)
├── NoVenv             exit 4    this Python cannot make virtual environments
├── NoDisk             exit 5    the disk is full, or nearly
├── NoNetwork          exit 6    pip cannot reach its package index
├── PipFailed          exit 7    pip failed for another reason; names the log
├── PortInUse          exit 8    somebody else listens there
└── NotWritable        exit 9    a folder the program needs cannot be written
"""

from __future__ import annotations


class Problem(Exception):
    """The program cannot go on; str(problem) says why and what to do."""

    exit_code = 1


class BadOption(Problem):
    exit_code = 2


class NoVenv(Problem):
    exit_code = 4


class NoDisk(Problem):
    exit_code = 5


class NoNetwork(Problem):
    exit_code = 6


class PipFailed(Problem):
    exit_code = 7


class PortInUse(Problem):
    exit_code = 8


class NotWritable(Problem):
    exit_code = 9
