"""Foundations that know nothing of models: errors, settings, files, processes, seeds, signals."""
