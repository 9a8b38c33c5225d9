"""Ways of making one vector of hidden states."""
