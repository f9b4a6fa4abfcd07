"""Labelled defects that can be planted in real parts."""
