"""What can go wrong that Python has no name for."""

from __future__ import annotations


class NotFittedError(ValueError, AttributeError):
    """A model was asked before it was fitted; of the same kinds as scikit-learn's error of this name."""


class ParameterWarning(Warning):
    """Something was given in a form that costs time or is not used as given."""
