"""Usher with one of its safeguards taken out, to see that the campaign notices.

The product has no switches for this: each control is a process of its own that stands in for one
of the Procfile's. `<name>.Procfile` says which.
"""
