"""Who may see the page, and who may operate: loopback or the token; and what proves that a form was this page's own. Pure
but for the clock it is handed.

No cookies: a token comes as HTTP Basic (any name, the token as password), as Bearer, or in the form.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any, Final

from starlette.requests import Request

__all__ = ["HEADERS", "SHORTEST", "Guard", "is_loopback", "is_own"]

SHORTEST: Final = 16
"""The fewest characters of a token."""
PROOF_LASTS: Final = 86400.0
"""For how many seconds a page's forms may be sent."""

HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=()",
    "referrer-policy": "same-origin",  # with none at all a form of our own would have no origin
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
"""What every answer says to the browser."""

_FORWARDED: Final = ("forwarded", "via", "x-forwarded-for", "x-forwarded-host", "x-real-ip")
_NAMES: Final = re.compile(r"(localhost|127(?:\.[0-9]{1,3}){3}|\[::1\])(?::[0-9]{1,5})?")
_LONGEST: Final = 1024  # characters of an Authorization header that are looked at


def is_loopback(address: str) -> bool:
    """Whether an address, or the name localhost, is only reached from this machine."""
    if address == "localhost":
        return True
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def is_own(request: Request) -> bool:
    """Whether a request was made by this page itself, or by no page of any site, as far as the browser says."""
    site = request.headers.get("sec-fetch-site")
    if site is not None and site not in {"same-origin", "none"}:
        return False
    origin = request.headers.get("origin")
    return origin is None or origin.partition("://")[2] == request.headers.get("host")


class Guard:
    """Decides by the token, None where there is none. Raises ValueError for one that is too short or not printable ASCII."""

    def __init__(self, token: str | None) -> None:
        if token is not None and not (
            len(token) >= SHORTEST and token.isascii() and token.isprintable()
        ):
            raise ValueError(f"token must be {SHORTEST} or more printable ASCII characters")
        self._token = None if token is None else token.encode()

    @property
    def operable(self) -> bool:
        """Whether there is a token to operate with."""
        return self._token is not None

    def is_local(self, request: Request) -> bool:
        """Whether both ends are on this machine and no proxy is between, nor another name, as when a name was bound anew."""
        ends: tuple[Any, Any] = (request.scope.get("server"), request.scope.get("client"))
        if not all(end and is_loopback(end[0]) for end in ends):
            return False
        if any(name in request.headers for name in _FORWARDED):
            return False
        return _NAMES.fullmatch(request.headers.get("host", "")) is not None

    def knows(self, request: Request) -> bool:
        """Whether the request's Authorization holds the token."""
        scheme, _, value = request.headers.get("authorization", "")[:_LONGEST].partition(" ")
        if scheme.lower() == "bearer":
            return self.fits(value.strip())
        if scheme.lower() != "basic":
            return False
        try:
            given = base64.b64decode(value, validate=True).decode()
        except (binascii.Error, UnicodeDecodeError):
            return False
        return self.fits(given.partition(":")[2])

    def fits(self, given: str) -> bool:
        """Whether that is the token, in a time that tells nothing of it."""
        return self._token is not None and hmac.compare_digest(given.encode(), self._token)

    def proof(self, now: float) -> str:
        """What a form made at *now* proves itself with: only who knows the token, or was shown the page, can have it."""
        stamp = f"{now:.0f}"
        return f"{stamp}.{self._sign(stamp)}"

    def proves(self, given: str, now: float) -> bool:
        """Whether a form was made by a page of ours not long before *now*, by whichever process has this token."""
        stamp, _, signature = given.partition(".")
        if not (re.fullmatch(r"[0-9]{1,12}", stamp) and signature.isascii()):
            return False
        young = -60.0 <= now - float(stamp) <= PROOF_LASTS
        return hmac.compare_digest(signature, self._sign(stamp)) and young

    def _sign(self, stamp: str) -> str:
        assert self._token is not None
        return hmac.digest(self._token, b"linepicker form " + stamp.encode(), "sha256").hex()
