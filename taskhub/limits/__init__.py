"""How much of the server one caller may have, and what it is told beyond that."""
