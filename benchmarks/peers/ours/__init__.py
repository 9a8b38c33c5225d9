"""This project, asked what the peers are asked."""
