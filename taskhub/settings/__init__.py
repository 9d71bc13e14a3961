"""What an operator may set: groups of fields, where their values come from, and how they are shown."""
