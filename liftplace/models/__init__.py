"""Models in folders and in memory, and the noise process that they were trained with."""
