"""Usher's dispatcher: puts exactly one LiveKit agent into a room and shows how it got there.

Importing this package is cheap on purpose: `web` and `worker_agent` import its ledger and models,
and `celery -A dispatcher` finds the application in `dispatcher.celery`.
"""
