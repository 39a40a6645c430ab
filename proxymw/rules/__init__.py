"""Decisions: plain functions and frozen values that import and run with nothing else running."""
