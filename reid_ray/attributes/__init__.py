"""The parser of captions' attributes and the words it knows: who says what a person wears. Knows text; not who wrote it or what is true."""
