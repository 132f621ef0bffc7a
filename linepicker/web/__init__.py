"""The status page: what the lines do, why, and how much still fits, as an ASGI application. Needs `linepicker[web]`."""

from linepicker.web.app import StatusApp

__all__ = ["StatusApp"]
