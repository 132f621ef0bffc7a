"""What all tests share: how Hypothesis runs."""

from hypothesis import settings

# A loaded machine is slow, and that is not a fault of the code: no deadline per example.
settings.register_profile("linepicker", deadline=None, print_blob=True)
settings.load_profile("linepicker")
