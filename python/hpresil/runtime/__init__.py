"""What runs in the training process: the step loop, its contract with the group, and recovery."""
