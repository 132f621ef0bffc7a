"""What tests of programs built on linepicker need: a clock, a provider, and the contract of a store."""

from linepicker.testing.check_store import check_async_store, check_store
from linepicker.testing.clock import ManualClock
from linepicker.testing.fakelinq import FakeLinq

__all__ = ["FakeLinq", "ManualClock", "check_async_store", "check_store"]
