"""Headers that every answer has."""

from __future__ import annotations

from typing import Final

# Nothing may be loaded, framed or sent from an answer that is data; it is shown, at the most.
NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"


ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    # Pages of the clients read the API by CORS, which this does not touch; it keeps others from
    # embedding what is here.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), payment=(), usb=(), "
    "microphone=(self)",
}
