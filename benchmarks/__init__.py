"""Measurements on demand. Nothing here is a test."""
