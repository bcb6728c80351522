"""Choosing which frames of a sweep are measured."""
