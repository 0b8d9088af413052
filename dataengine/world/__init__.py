"""Pictures without an edge, with one set of labels."""
