"""Registries on loopback, and what is between them and us."""
