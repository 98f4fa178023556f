"""Why a picture cannot be kept."""


class UnstrippableError(ValueError):
    """The parts of a picture's file cannot be told apart, so its metadata cannot be left out."""
