"""``ftkit doctor``: what a machine has, and what a recipe lacks on it."""
