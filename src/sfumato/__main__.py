"""Run the command line as ``python -m sfumato``."""

from sfumato.cli import program

if __name__ == "__main__":
    program()
