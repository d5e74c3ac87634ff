"""`liftplace report`: several runs side by side."""
