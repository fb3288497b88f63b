"""Security headers of every answer; pages have another Content-Security-Policy."""

from __future__ import annotations

from typing import Final

SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    # The clients' pages read the API by CORS, which this does not affect; it keeps other sites from
    # embedding Usher's answers.
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), payment=(), usb=(), "
    "microphone=(self)",
    # From an answer that is data nothing may be loaded, framed or sent.
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    # Tokens, records and permissions must not be kept by a proxy or on a shared disk.
    "Cache-Control": "no-store",
}
