"""The train_parser job: trains the tiny human parser that is built in, and measures it on other people."""
