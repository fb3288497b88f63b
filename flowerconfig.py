"""Flower's settings, each with its reason; Flower reads this file where it is started.

A `FLOWER_...` variable and Flower's own options stand above what is here.
"""

import os

from tornado.options import options

from dispatcher.logs import configure
from dispatcher.settings import CommonSettings, load

# Tornado's own lines go into the shape of ours.
_common = load(CommonSettings)
configure(log_format=_common.log_format, level=_common.log_level)

# Whoever sees Flower sees rooms and dispatch ids, and can stop workers. It starts without a
# password by default; here it does not.
_logins = list(options.basic_auth or ())
if not options.auth and not _logins:
    raise SystemExit(
        "Flower does not start without a password: set FLOWER_BASIC_AUTH=<user>:<password>"
    )
if not all(user and password for user, _, password in (each.partition(":") for each in _logins)):
    raise SystemExit("FLOWER_BASIC_AUTH must be <user>:<password>, and neither of them empty")

# By default all addresses of the machine.
address = os.environ.get("FLOWER_ADDRESS", "127.0.0.1")
port = int(os.environ.get("FLOWER_PORT", os.environ.get("USHER_FLOWER_PORT", "5555")))
tasks_columns = os.environ.get("FLOWER_TASKS_COLUMNS", "name,kwargs,state,received,runtime,worker")
