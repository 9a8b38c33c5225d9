"""Recipes, plans, the store and what every room stands on."""
