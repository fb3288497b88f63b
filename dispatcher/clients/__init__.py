"""Clients (tenants): what each may use, and the file that configures them."""
