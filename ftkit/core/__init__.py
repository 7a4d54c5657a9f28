"""What every part speaks: groups, batches, sums over them, and errors."""
