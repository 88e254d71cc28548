"""The gallery: a store of searchable items in immutable segments and generations, with writes, deletion, erasure and exact filters."""
