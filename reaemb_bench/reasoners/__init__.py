"""Ways of computing latent thoughts."""
