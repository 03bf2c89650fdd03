"""The agent of a node: it starts workers, notices their ends, and owns what outlives them."""
