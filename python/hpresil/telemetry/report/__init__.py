"""A job as a page that people can read: figures, tables, one HTML file without a network."""
