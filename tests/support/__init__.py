"""Helpers that tests share: values, servers, clients, and fakes at the socket."""
