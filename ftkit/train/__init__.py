"""The chain rule and what surrounds it."""
