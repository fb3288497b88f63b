"""The operator's dashboard: its pages and their JSON API."""
