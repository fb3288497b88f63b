"""Security headers of every answer, and the Content-Security-Policy of data."""

from __future__ import annotations

from typing import Final

# From an answer that is data nothing may be loaded, framed or sent.
NOTHING: Final = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
ALWAYS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The clients' pages read the API by CORS, which this does not affect; it keeps other sites from
    # embedding Usher's answers.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), payment=(), usb=(), "
    "microphone=(self)",
}
