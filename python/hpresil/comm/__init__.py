"""Process groups that can be interrupted, and sums whose bits do not depend on the world size."""
