"""The one error of this package."""


class DataError(Exception):
    """Data that cannot be used: missing, empty, wrong names, shapes or dtypes, NaN."""

    exit_code = 3
