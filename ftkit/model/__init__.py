"""The policy: loading, log-probabilities, saving."""
