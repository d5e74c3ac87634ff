"""Small students from big teachers."""
