"""Complete training programs written with hpresil; one folder a model, the same file names in each."""
