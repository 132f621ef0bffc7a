"""A provider for tests: the Linq Partner API v3, as far as the choice of a line is concerned, on a loopback socket."""

from linepicker.testing.fakelinq.fake import Clock, FakeLinq, serve_forever
from linepicker.testing.fakelinq.model import Guesses, SentMessage
from linepicker.testing.fakelinq.parse import Request

__all__ = ["Clock", "FakeLinq", "Guesses", "Request", "SentMessage", "serve_forever"]
