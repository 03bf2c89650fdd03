"""A resilience runtime for PyTorch training: faults and resizes do not show in the loss curve."""
