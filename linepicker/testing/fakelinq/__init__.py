"""A provider for tests: the Linq Partner API v3, as far as the choice of a line is concerned, on a loopback socket."""

from linepicker.testing.fakelinq.fake import Clock, FakeLinq
from linepicker.testing.fakelinq.model import Guesses, SentMessage
from linepicker.testing.fakelinq.parse import Request
from linepicker.testing.fakelinq.people import Person
from linepicker.testing.fakelinq.process import serve_forever
from linepicker.testing.fakelinq.webhooks import Delivery, Retry

__all__ = [
    "Clock",
    "Delivery",
    "FakeLinq",
    "Guesses",
    "Person",
    "Request",
    "Retry",
    "SentMessage",
    "serve_forever",
]
