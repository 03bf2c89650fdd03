"""Where samples come from: their order, the token file, and what a slot's microbatch consists of."""
