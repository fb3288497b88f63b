"""The operator's pages and their API."""
