"""Simulated exams whose true measurements are known."""
