"""What a job tells about itself: the record of its committed steps."""
