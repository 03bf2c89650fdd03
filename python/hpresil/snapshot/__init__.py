"""What must survive: capturing tracked state, restoring it bit for bit, and frames of shared memory."""
