"""The errors of this package."""


class UsageError(ValueError):
    """Bad input from the user. The message shows the value, says what is wrong and what to do. The
    command line prints it in one line and ends with exit code 2."""


class NonFiniteError(RuntimeError):
    """A loss, a gradient, a weight, an output or a sample is NaN or infinite."""
