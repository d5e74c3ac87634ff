"""The one error that the command line turns into a single line and exit code 2."""


class UsageError(ValueError):
    """Bad input from the user: says what was given, why it does not do, and what to do."""
