"""What goes over the wire: schemas, problems, tokens, headers."""
