"""What workers do to a dispatch, from the request to its end."""
