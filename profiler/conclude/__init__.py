"""From a machine-level verdict to an Analysis: the source put to it, the words, the annotated lines."""
