"""Tables of results and the ways to show them."""
