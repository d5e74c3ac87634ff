"""Samples, the scores of samples, and pictures of them."""
