"""The ranks among which a batch is dealt."""
