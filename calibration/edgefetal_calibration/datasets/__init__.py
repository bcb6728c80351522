"""Labelled datasets, one file per kind, and the split by subject that all of them share."""
