"""impl="native": the loss ops in C++ for the CPU."""
