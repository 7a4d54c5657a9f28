"""Rows to groups: reading, chat templates and masks, tokens, order."""
