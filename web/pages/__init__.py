"""What browsers get: templates, scripts, styles, and their views."""
