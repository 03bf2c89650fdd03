"""Versions made durable: directories that are either complete or ignored."""
