"""What an edit run changes: looks, the draw of each edit, the people that come of it, and the plan as a table. Makes no picture."""
