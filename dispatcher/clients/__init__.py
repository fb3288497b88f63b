"""Tenants: which clients there are, what each may use, and the file that says so."""
