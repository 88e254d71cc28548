"""Bringing what older versions wrote to today's formats."""
