"""Who is in the job, at which generation, and what a changed group has to do."""
