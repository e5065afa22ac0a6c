"""Tokens before and after, and what they cost."""
