"""Loaded by Python itself where this folder is in PYTHONPATH: see `tests/measure/switch.py`."""

from tests.measure.switch import install

install()
