"""Stream tokens: what opens one stream of one caller, for clients that cannot send headers."""
