"""Format migration: outputs of older versions -> today's formats."""
