"""One job in several processes: how many there are, how they meet, and which does what."""
