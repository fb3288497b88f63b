"""The operator's pages at `/dashboard`, and signing in.

The pages hold no data: their scripts ask `web/dashboard/api.py` for it. Why:
`docs/decisions/0091-dashboard-pages-empty.md`.
"""

from __future__ import annotations

import re
from typing import Final

from flask import Blueprint, Response, redirect, render_template, request
from werkzeug.wrappers import Response as AnyResponse

from web.auth.operator import (
    PATH,
    check_own_form,
    check_password,
    operator_credential,
    sign_in,
    sign_out,
    signed_in,
)
from web.pages import static_files

blueprint = Blueprint(
    "dashboard", __name__, url_prefix=PATH, template_folder=static_files.TEMPLATES
)

# No inline script or style, nothing from other origins, forms to our own origin only.
_POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
# Where to go after signing in: only to a page of ours, as the form comes from the browser.
_OWN_PAGE: Final = re.compile(r"/dashboard(/sessions(/[A-Za-z0-9_-]{1,256})?)?(\?[!-~]{0,500})?")


@blueprint.before_request
def _is_switched_on() -> Response | None:
    """Say how to switch the dashboard on where no credential is set; that page needs its style."""
    if request.endpoint == "dashboard.part" or operator_credential():
        return None
    return _with_policy(Response(render_template("dashboard/off.html"), status=403))


@blueprint.get("", endpoint="overview", defaults={"name": "overview"})
@blueprint.get("/sessions", endpoint="sessions", defaults={"name": "sessions"})
@blueprint.get("/sessions/<dispatch_id>", endpoint="session", defaults={"name": "session"})
def page(name: str, dispatch_id: str = "") -> AnyResponse:
    """Serve a page, or redirect to the login. The page's script reads the id from the address."""
    # A request from another site carries no cookie; the page's own requests do.
    crossing = request.headers.get("Sec-Fetch-Site") in ("cross-site", "same-site")
    if not crossing and not signed_in():
        wanted = _own_page(request.full_path.rstrip("?"))
        return redirect(f"{request.root_path}{PATH}/login?next={wanted}", 303)
    answer = static_files.page(f"dashboard/{name}.html")
    answer.vary.add("Cookie")
    return _with_policy(answer)


def _with_policy(answer: Response) -> Response:
    answer.headers["Content-Security-Policy"] = _POLICY
    # Browsers then say where a form comes from (`check_own_form`), and tell other sites nothing.
    answer.headers["Referrer-Policy"] = "same-origin"
    return answer


def _own_page(wanted: str) -> str:
    return wanted if _OWN_PAGE.fullmatch(wanted) else PATH


@blueprint.get("/login")
def login() -> AnyResponse:
    """Show the login form."""
    return _form()


def _form(*, status: int = 200, trouble: str = "", wait_s: int = 0) -> Response:
    wanted = _own_page(request.values.get("next", PATH))
    page = render_template(
        "dashboard/login.html",
        next=wanted,
        trouble=trouble,
        wait_s=wait_s,
        user=request.form.get("user", "")[:256],
        signed_out="out" in request.args,
    )
    answer = _with_policy(Response(page, status=status))
    if wait_s:
        answer.headers["Retry-After"] = str(wait_s)
    return answer


@blueprint.post("/login")
def log_in() -> AnyResponse:
    """Sign the operator in."""
    check_own_form()
    right, wait_s = check_password(request.form.get("user", ""), request.form.get("password", ""))
    if wait_s:
        return _form(status=429, trouble="wait", wait_s=wait_s)
    if not right:
        return _form(status=401, trouble="wrong")
    answer = _with_policy(Response(status=303))
    answer.headers["Location"] = request.root_path + _own_page(request.form.get("next", PATH))
    sign_in(answer)
    return answer


@blueprint.post("/logout")
def log_out() -> AnyResponse:
    """Sign the operator out in this browser."""
    check_own_form()
    answer = Response(status=303)
    answer.headers["Location"] = f"{request.root_path}{PATH}/login?out"
    sign_out(answer)
    return answer


@blueprint.get("/parts/<name>")
def part(name: str) -> Response:
    """Serve a script or style of the pages, without a sign-in: the login form needs some."""
    return static_files.page_part("dashboard", name)
