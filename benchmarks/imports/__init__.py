"""The same data code with different libraries to import: what a worker must have before its first example."""
