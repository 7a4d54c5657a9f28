"""vLLM as the one who writes answers, in this process or in servers."""
