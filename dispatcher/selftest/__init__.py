"""Test a running deployment from outside: `celery -A dispatcher dispatch selftest`.

As a client: by HTTP with one of the client's keys, and as a participant in the test's own rooms. It
uses nothing of Usher's own but the HTTP interface (and the counters, where they may be read).
"""
