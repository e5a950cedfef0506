"""Data sources, the one prepared format they write, and the Lightning data module that reads it."""
