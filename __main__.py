"""The `halfbyte` command, and `python -m halfbyte`.

Nothing is imported before `main`, neither here nor in the package's `__init__`, so that Ctrl-C is answered from the
start.
"""


def main() -> None:
    """The console script. Never returns: it ends the process with a documented exit code."""
    try:
        from .tools.cli import main as command

        command()
    except KeyboardInterrupt:  # while modules are loaded; afterwards `command` says the same
        _leave_interrupted()


def _leave_interrupted() -> None:
    """What `tools.cli` does, by what Python has imported at its own start."""
    import os
    import sys

    try:
        # a terminal has just echoed ^C
        sys.stderr.write("\ninterrupted\n" if sys.stderr.isatty() else "interrupted\n")
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass  # closed, or nobody reads it
    os._exit(130)


if __name__ == "__main__":
    main()
