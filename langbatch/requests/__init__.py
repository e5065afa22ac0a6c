"""The user's input: lines read, checked and refused, each with its number."""
