"""The command line: one file a command, each a thin function that parses, calls the library and prints.

A command is the function of its file's own name, found by standing there. Its parameters and their docstrings are its
options and its ``--help``. Nothing is imported before it is needed: torch comes with the work, never with the help.

Exit codes
    0    done
    2    the input cannot be used as it is: a message ``error: ...`` says the rule, the value and the remedy
    3    scores of different protocols were to be compared
    4    training is not finite
    5    another process of the run has ended (see `processes.ranks`)
    130  Ctrl-C, 143 SIGTERM: whatever was running has been saved
"""

from sfumato.cli._main import main, program

__all__ = ["main", "program"]
