"""What goes wrong and is told in a line."""


class UsageError(ValueError):
    """Bad input from the user: says what was given, why it does not do, and what to do. The command
    line turns it into a single line and exit code 2."""


class NonFiniteError(RuntimeError):
    """A loss, a gradient, a weight, an output or a sample is NaN or infinite."""
