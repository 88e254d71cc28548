"""Labels for pictures that look alike: a page that asks whether two show one person, and tables written with the answers."""
