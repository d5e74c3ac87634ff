"""What a student has learnt from its teacher, and what it has not."""
