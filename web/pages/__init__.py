"""Templates, scripts and styles for browsers, and the views that serve them."""
