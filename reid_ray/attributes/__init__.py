"""Attribute extraction from captions: the parser and the words it knows. Knows text; not who wrote it or what is true."""
